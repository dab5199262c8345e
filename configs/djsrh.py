"""DJSRH, image-text hashing without labels: DUDCH's teacher as a method of its own.

python train.py --config configs/djsrh.py:wikipedia --workdir runs/djsrh \
  --config.data.path=wikipedia.npz

Presets: pairs, wikipedia and features (two CPU cores), mirflickr25k and nus_wide, as those of
configs/dudch.py.
"""

from udh_jax.methods import defaults, djsrh


def wikipedia():
  return djsrh.default_config("wikipedia")


def features():
  """One's own features: --config.data.path, .image, .text and .label name the file and arrays."""
  return djsrh.default_config("features")


def pairs():
  """One's own pictures and texts: a table, see docs/own_pictures.md."""
  return defaults.on_own_pairs(djsrh.default_config("pairs"))


def mirflickr25k():
  return defaults.on_picture_pairs(djsrh.default_config("mirflickr25k"))


def nus_wide():
  return defaults.on_picture_pairs(djsrh.default_config("nus_wide"))


PRESETS = {
  "wikipedia": wikipedia,
  "features": features,
  "pairs": pairs,
  "mirflickr25k": mirflickr25k,
  "nus_wide": nus_wide,
}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/djsrh.py")()
