"""DJSRH, image-text hashing without labels: DUDCH's teacher as a method of its own.

python train.py --config configs/djsrh.py:wikipedia --workdir runs/djsrh \
  --config.data.path=wikipedia.npz

Presets: wikipedia (features, two CPU cores), mirflickr25k and nus_wide (pictures and tags in their
official layouts; give --config.teacher.weights).
"""

from udh_jax.methods import defaults


def wikipedia():
  return defaults.on_wikipedia(defaults.djsrh("wikipedia"))


def mirflickr25k():
  """The authors' settings."""
  config = defaults.on_picture_pairs(defaults.djsrh("mirflickr25k"))
  config.djsrh.update(beta=0.9, within_weight=0.1, epochs=80)
  return config


def nus_wide():
  """The authors' settings."""
  config = defaults.on_picture_pairs(defaults.djsrh("nus_wide"))
  config.djsrh.update(beta=0.6, within_weight=0.1, epochs=80)
  return config


PRESETS = {"wikipedia": wikipedia, "mirflickr25k": mirflickr25k, "nus_wide": nus_wide}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/djsrh.py")()
