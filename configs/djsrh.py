"""DJSRH, image-text hashing without labels: DUDCH's teacher as a method of its own.

python train.py --config configs/djsrh.py:wikipedia --workdir runs/djsrh \
  --config.data.path=wikipedia.npz

Presets: wikipedia (features, two CPU cores), mirflickr25k and nus_wide (pictures and tags in their
official layouts; give --config.teacher.weights).
"""

from udh_jax.methods import defaults

# methods.md section 2: the authors' settings.
WIKIPEDIA = {"beta": 0.3, "within_weight": 0.3, "epochs": 60}
MIRFLICKR = {"beta": 0.9, "within_weight": 0.1, "epochs": 80, "image_learning_rate": 0.001}
NUS_WIDE = {"beta": 0.6, "within_weight": 0.1, "epochs": 80, "image_learning_rate": 0.001}


def on_pictures(config):
  """Pictures at 160 pixels, on ImageNet weights."""
  config.teacher.weights = "hf-hub:timm/mobilenetv2_100.ra_in1k"
  config.encode.batch_size = 64
  config.checkpoint_every = 200
  return config


def wikipedia():
  config = defaults.djsrh("wikipedia")
  config.djsrh.update(WIKIPEDIA)
  return config


def mirflickr25k():
  config = on_pictures(defaults.djsrh("mirflickr25k"))
  config.djsrh.update(MIRFLICKR)
  return config


def nus_wide():
  config = on_pictures(defaults.djsrh("nus_wide"))
  config.djsrh.update(NUS_WIDE)
  return config


PRESETS = {"wikipedia": wikipedia, "mirflickr25k": mirflickr25k, "nus_wide": nus_wide}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/djsrh.py")()
