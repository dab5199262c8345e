"""DUDCH, image-text hashing without labels: a DJSRH teacher, a student with discrete codes.

python train.py --config configs/dudch.py:wikipedia --workdir runs/dudch \
  --config.data.path=wikipedia.npz

Presets: wikipedia (features, two CPU cores), mirflickr25k and nus_wide (pictures and tags in their
official layouts; give --config.teacher.weights).
"""

from udh_jax.methods import defaults


def wikipedia():
  """Chosen on validation pairs, as docs/results.md tells; the teacher is configs/djsrh.py's."""
  config = defaults.dudch("wikipedia")
  config.djsrh.update(beta=0.3, within_weight=0.3, epochs=60)
  config.similarity.cross_share = 0.8
  config.student.update(
    hidden=1024,
    dropout=0.3,
    rounds=40,
    epochs=5,
    batch_size=128,
    image_learning_rate=2.0,
    text_learning_rate=0.3,
    weight_decay=0.0,
    decay="cosine",
    gamma=2000.0,
  )
  return config


def mirflickr25k():
  config = defaults.on_picture_pairs(defaults.dudch("mirflickr25k"))
  config.djsrh.update(beta=0.9, within_weight=0.1, epochs=80)
  return config


def nus_wide():
  config = defaults.on_picture_pairs(defaults.dudch("nus_wide"))
  config.djsrh.update(beta=0.6, within_weight=0.1, epochs=80)
  return config


PRESETS = {"wikipedia": wikipedia, "mirflickr25k": mirflickr25k, "nus_wide": nus_wide}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/dudch.py")()
