"""DUDCH, image-text hashing without labels: a DJSRH teacher, a student with discrete codes.

python train.py --config configs/dudch.py:wikipedia --workdir runs/dudch \
  --config.data.path=wikipedia.npz

Presets: pairs for one's own pictures and texts (a table; the backbone stays as it is), wikipedia,
and features for one's own features of pairs, all on two CPU cores; mirflickr25k and nus_wide
(pictures and tags in their official layouts; MobileNetV2 from the hub unless
--config.teacher.weights names another).
"""

from udh_jax.methods import defaults, dudch


def on_features(data: str):
  """One setting for all sets, chosen on validation pairs of three, as docs/results.md tells."""
  config = dudch.default_config(data)
  config.djsrh.bits = 128  # one teacher for every length
  config.similarity.cross_share = 0.8
  config.student.update(
    hidden=512,
    dropout=0.15,
    rounds=30,
    epochs=3,
    batch_size=128,
    optimizer="adam",
    image_learning_rate=1e-2,
    text_learning_rate=3e-3,
    weight_decay=0.0,
    decay="cosine",
  )
  return config


def wikipedia():
  return on_features("wikipedia")


def features():
  """One's own features: --config.data.path, .image, .text and .label name the file and arrays."""
  return on_features("features")


def pairs():
  """One's own pictures and texts: a table, see docs/own_pictures.md."""
  return defaults.on_own_pairs(on_features("pairs"))


def mirflickr25k():
  return defaults.on_picture_pairs(dudch.default_config("mirflickr25k"))


def nus_wide():
  return defaults.on_picture_pairs(dudch.default_config("nus_wide"))


PRESETS = {
  "wikipedia": wikipedia,
  "features": features,
  "pairs": pairs,
  "mirflickr25k": mirflickr25k,
  "nus_wide": nus_wide,
}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/dudch.py")()
