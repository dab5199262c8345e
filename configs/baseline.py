"""Baselines on the features of a published network: codes in under a minute, nothing is trained.

python train.py --config configs/baseline.py:itq --workdir runs/itq --config.data.path=PICTURES \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k

Presets: itq, pca (with a random rotation), lsh, on any folder of pictures; with the name of another
data set behind it, such as itq_cifar10: digits, cifar10, eurosat, mirflickr25k.
"""

import functools

from udh_jax.methods import baseline, defaults


def on_data(method, data):
  config = baseline.default_config(data, method=method)
  if data == "digits":
    defaults.on_digits(config)
  if data == "cifar10":
    config.features.image_sizes = (160,)
  if data == "folder":
    defaults.score_folders(config)
  if data == "flickr25k":
    config.score.at = 5000
  return config


DATA = {
  "folder": "folder",
  "digits": "digits",
  "cifar10": "cifar10",
  "eurosat": "eurosat",
  "mirflickr25k": "flickr25k",
}
PRESETS = {
  f"{method}_{name}".removesuffix("_folder"): functools.partial(on_data, method, data)
  for method in baseline.METHODS
  for name, data in DATA.items()
}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/baseline.py")()
