"""Contrast between images and texts, a method that competes with DUDCH.

python train.py --config configs/pair_contrast.py:wikipedia --workdir runs/pair_contrast \
  --config.data.path=wikipedia.npz

Presets: pairs, wikipedia and features, as those of configs/dudch.py.
"""

from udh_jax.methods import defaults, pair_contrast


def wikipedia():
  return pair_contrast.default_config("wikipedia")


def features():
  """One's own features: --config.data.path, .image, .text and .label name the file and arrays."""
  return pair_contrast.default_config("features")


def pairs():
  """One's own pictures and texts: a table, see docs/own_pictures.md."""
  return defaults.on_own_pairs(pair_contrast.default_config("pairs"))


PRESETS = {"wikipedia": wikipedia, "features": features, "pairs": pairs}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/pair_contrast.py")()
