"""BiHalf, a competing method, on the same teacher, images and protocol as UDH-ECC.

python train.py --config configs/bihalf.py:cifar10 --workdir runs/bihalf \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY

Presets: digits, cifar10, mirflickr25k, folder (any folder of pictures).
"""

from udh_jax.methods import bihalf, competing, defaults

PRESETS = competing.presets(bihalf.default_config, "bihalf")


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/bihalf.py")()
