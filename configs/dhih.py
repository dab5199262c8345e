"""DHIH, supervised and point-wise, and competing methods: one trainer, one loss each.

python train.py --config configs/dhih.py:cifar10 --workdir runs/dhih \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY

Presets: digits (a minute), cifar10, svhn (two CPU cores), nus_wide (an accelerator), folder (one's
own pictures, each in the subfolder of its class); cifar10_frozen and folder_frozen, where the
network stays as it is and a training takes seconds. With the name of a method behind it, such as
cifar10_orthohash, a preset is that method's: softmax, greedyhash, orthohash, csq, or a member of
DHIH's family: dhih_scale, dhih_l_softmax, dhih_a_softmax, dhih_cosface, dhih_arcface.

Each method of a frozen preset has the settings that as many trials as DHIH had chose for it
(docs/results.md#how-the-settings-were-chosen); members of DHIH's family have DHIH's. In other
presets steps, batches and rates are DHIH's: none were chosen for the others there.
"""

import functools

from udh_jax.methods import automatic, defaults, dhih


def digits(method):
  """scikit-learn's digits: 500 labelled images, 50 a class."""
  config = dhih.default_config("digits", method=method, num_train=500, train_draw="balanced")
  defaults.on_digits(config, config.supervised)
  return config


def cifar10(method):
  """1,000 queries and 5,000 labelled images, both balanced, drawn from all images of the set."""
  config = dhih.default_config(
    "cifar10", method=method, test_part="pooled", num_train=5000, train_draw="balanced"
  )
  config.features.image_sizes = (128,)
  return config


def svhn(method):
  """The first 1,000 test images as queries; 5,000 labelled images of the 73,257 to train on."""
  config = dhih.default_config("svhn", method=method, num_train=5000, train_draw="balanced")
  config.features.image_sizes = (96,)
  config.supervised.augment = defaults.augmentation(crop_scale=(0.6, 1.0), flip=False)
  return config


def nus_wide(method):
  """The 21 most frequent concepts, several an image; 10,500 labelled images."""
  config = dhih.default_config(
    "nus_wide",
    method=method,
    selection="tc21",
    num_queries=2100,
    num_validation=2100,
    num_train=10_500,
  )
  defaults.on_accelerator(config, config.supervised)
  config.score.at = 5000
  return config


def folder(method):
  """One's own pictures, on a CPU: each in the subfolder of its class."""
  config = dhih.default_config("folder", method=method)
  automatic.on_any_pictures(config)
  return config


# What differs from DHIH's settings on a network that stays as it is: fields of `supervised`.
_FROZEN = {
  "csq": {"steps": 500, "batch_size": 256},
  "orthohash": {"steps": 500, "head_learning_rate": 0.01},
  "greedyhash": {"batch_size": 256},
  "softmax": {"batch_size": 256},
}


def _freeze(config):
  config.supervised.update(trained="head", steps=1500)
  config.supervised.update(_FROZEN.get(config.method, {}))
  return config


def cifar10_frozen(method):
  """cifar10, with a network that stays as it is and reads pictures once, at 160 pixels."""
  config = cifar10(method)
  config.features.image_sizes = (160,)
  return _freeze(config)


def folder_frozen(method):
  """folder, with a network that stays as it is."""
  return _freeze(folder(method))


_DATA = (digits, cifar10, cifar10_frozen, svhn, nus_wide, folder, folder_frozen)
PRESETS = {
  **{data.__name__: functools.partial(data, "dhih") for data in _DATA},
  **{
    f"{data.__name__}_{method}": functools.partial(data, method)
    for data in _DATA
    for method in dhih.TITLES
    if method != "dhih"
  },
}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/dhih.py")()
