"""BiHalf, a competing method, on the same teacher, images and protocol as UDH-ECC.

python train.py --config configs/bihalf.py:cifar10 --workdir runs/bihalf \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY

Presets: digits, cifar10, mirflickr25k, folder; the last reads 160 pixels and chooses nothing.
"""

from udh_jax.methods import bihalf, defaults

PRESETS = defaults.competing_presets(bihalf.default_config, "bihalf")


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/bihalf.py")()
