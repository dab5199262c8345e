"""DUDCH, image-text hashing without labels: a DJSRH teacher, a student with discrete codes.

python train.py --config configs/dudch.py:wikipedia --workdir runs/dudch \
  --config.data.path=wikipedia.npz

Presets: wikipedia (features, two CPU cores), mirflickr25k and nus_wide (pictures and tags in their
official layouts; give --config.teacher.weights).
"""

from udh_jax.methods import defaults


def wikipedia():
  config = defaults.dudch("wikipedia")
  config.djsrh.update(beta=0.3, within_weight=0.3, epochs=60)
  return config


PRESETS = {"wikipedia": wikipedia}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/dudch.py")()
