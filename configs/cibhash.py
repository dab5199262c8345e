"""CIBHash, a competing method, on the same teacher, images and protocol as UDH-ECC.

python train.py --config configs/cibhash.py:cifar10 --workdir runs/cibhash \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY
"""

from udh_jax.methods import cibhash, defaults

PRESETS = defaults.competing_presets(cibhash.default_config, "contrast")


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/cibhash.py")()
