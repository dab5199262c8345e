"""UCCH, image-text hashing without labels by contrast: a method that competes with DUDCH.

python train.py --config configs/ucch.py:wikipedia --workdir runs/ucch \
  --config.data.path=wikipedia.npz

Presets: pairs, wikipedia and features, as those of configs/dudch.py.
"""

from udh_jax.methods import defaults, ucch


def wikipedia():
  return ucch.default_config("wikipedia")


def features():
  """One's own features: --config.data.path, .image, .text and .label name the file and arrays."""
  return ucch.default_config("features")


def pairs():
  """One's own pictures and texts: a table, see docs/own_pictures.md."""
  return defaults.on_own_pairs(ucch.default_config("pairs"))


PRESETS = {"wikipedia": wikipedia, "features": features, "pairs": pairs}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/ucch.py")()
