"""SSDH, the base method of PSCH, on the teacher, images and sizes of its preset cifar10.

python train.py --config configs/ssdh.py:cifar10 --workdir runs/ssdh \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY

Presets: digits, cifar10, mirflickr25k, folder (any folder of pictures).
"""

from udh_jax.methods import competing, defaults, ssdh

PRESETS = competing.presets(ssdh.default_config, "ssdh")


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/ssdh.py")()
