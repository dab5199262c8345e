"""SSDH, the base method of PSCH, on the same teacher, images, sizes and steps.

python train.py --config configs/ssdh.py:cifar10 --workdir runs/ssdh \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY
"""

from udh_jax.methods import defaults, ssdh


def digits():
  """The quickstart's data and teacher."""
  config = ssdh.default_config("digits")
  defaults.on_digits(config, config.ssdh)
  return config


def cifar10():
  """CIFAR-10 on two CPU cores."""
  config = ssdh.default_config("cifar10")
  defaults.on_two_cores(config)
  return config


def mirflickr25k():
  """MIRFLICKR-25K: several labels an image, relevant if one is shared; 5,000 images to train on."""
  config = ssdh.default_config("flickr25k")
  defaults.on_two_cores(config)
  config.score.at = 5000
  return config


def folder():
  """Any folder of pictures, on a CPU; class subfolders are used for scoring only."""
  config = ssdh.default_config("folder")
  defaults.on_two_cores(config)
  config.score.at = 0
  return config


PRESETS = {"digits": digits, "cifar10": cifar10, "mirflickr25k": mirflickr25k, "folder": folder}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/ssdh.py")()
