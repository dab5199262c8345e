"""CIBHash, the contrastive rival, on the same teacher, images and protocol as UDH-ECC.

python train.py --config configs/cibhash.py:cifar10 --workdir runs/cibhash \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY
"""

from udh_jax.methods import defaults


def digits():
  """The quickstart's data, teacher and student size."""
  config = defaults.cibhash("digits")
  defaults.on_digits(config, config.contrast)
  return config


def cifar10():
  """CIFAR-10 on two CPU cores, with as many images seen as UDH-ECC's preset trains on."""
  config = defaults.cibhash("cifar10")
  config.contrast.steps = 600
  return config


PRESETS = {"digits": digits, "cifar10": cifar10}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/cibhash.py")()
