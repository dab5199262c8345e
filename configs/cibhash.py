"""CIBHash, a competing method, on the same teacher, images and protocol as UDH-ECC.

python train.py --config configs/cibhash.py:cifar10 --workdir runs/cibhash \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY
"""

from udh_jax.methods import cibhash, defaults


def digits():
  """The quickstart's data, teacher and student size."""
  config = cibhash.default_config("digits")
  defaults.on_digits(config, config.contrast)
  return config


def on_photographs(data):
  """Sizes as in UDH-ECC's preset, and about as many images read: 400 steps of two views each."""
  config = cibhash.default_config(data)
  defaults.on_two_cores(config)
  return config


def cifar10():
  """CIFAR-10 on two CPU cores."""
  return on_photographs("cifar10")


def mirflickr25k():
  """MIRFLICKR-25K: several labels an image, relevant if one is shared; 5,000 images to train on."""
  config = on_photographs("flickr25k")
  config.score.at = 5000
  return config


def folder():
  """Any folder of pictures, on a CPU; class subfolders are used for scoring only."""
  config = on_photographs("folder")
  config.score.at = 0
  return config


PRESETS = {"digits": digits, "cifar10": cifar10, "mirflickr25k": mirflickr25k, "folder": folder}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/cibhash.py")()
