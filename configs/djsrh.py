"""DJSRH, image-text hashing without labels: DUDCH's teacher as a method of its own.

python train.py --config configs/djsrh.py:wikipedia --workdir runs/djsrh \
  --config.data.path=wikipedia.npz

Presets: wikipedia (features, two CPU cores), mirflickr25k and nus_wide (pictures and tags in their
official layouts; give --config.teacher.weights).
"""

from udh_jax.methods import defaults, djsrh


def wikipedia():
  return djsrh.default_config("wikipedia")


def mirflickr25k():
  return defaults.on_picture_pairs(djsrh.default_config("mirflickr25k"))


def nus_wide():
  return defaults.on_picture_pairs(djsrh.default_config("nus_wide"))


PRESETS = {"wikipedia": wikipedia, "mirflickr25k": mirflickr25k, "nus_wide": nus_wide}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/djsrh.py")()
