"""Contrast between images and texts, a method that competes with DUDCH.

python train.py --config configs/pair_contrast.py:wikipedia --workdir runs/pair_contrast \
  --config.data.path=wikipedia.npz
"""

from udh_jax.methods import defaults, pair_contrast


def wikipedia():
  return pair_contrast.default_config("wikipedia")


PRESETS = {"wikipedia": wikipedia}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/pair_contrast.py")()
