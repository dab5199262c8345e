"""SSDH, the base method of PSCH, on the same teacher, images, sizes and steps.

python train.py --config configs/ssdh.py:cifar10 --workdir runs/ssdh \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY
"""

from udh_jax.methods import defaults, ssdh

PRESETS = defaults.competing_presets(ssdh.default_config, "ssdh")


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/ssdh.py")()
