"""PSCH: pseudo labels and soft multi-part similarity, on images without labels.

python train.py --config configs/psch.py:cifar10 --workdir runs/psch \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY

Presets: digits (a minute), cifar10 (38 minutes on two CPU cores), cifar10_best (75 minutes),
mirflickr25k, nus_wide (an accelerator), folder (one's own pictures). Every run draws where the
parts are: attention.png.
"""

from udh_jax.methods import automatic, defaults, psch


def digits():
  """The quickstart's data and teacher."""
  config = psch.default_config("digits")
  defaults.on_digits(config, config.psch)
  config.cluster.update(num_clusters=10, space="neighbours")
  return config


def cifar10():
  """CIFAR-10 on two CPU cores: clusters as UDH-ECC's, 1,600 steps, 38 minutes."""
  config = psch.default_config("cifar10")
  defaults.on_two_cores(config)
  defaults.on_the_graph(config.cluster)
  config.psch.steps = 1600
  return config


def cifar10_best():
  """Three rounds: one network, then two, then codes of every length on the mean of these.

  75 minutes on two CPU cores, whatever the lengths: one network serves all of them.
  """
  config = cifar10()
  config.rounds = 3
  config.networks = 2
  config.last_round = "layer"
  config.psch.classifier = "features"
  return config


def mirflickr25k():
  """MIRFLICKR-25K: several labels an image, relevant if one is shared; 5,000 images to train on."""
  config = psch.default_config("flickr25k")
  defaults.on_two_cores(config)
  config.cluster.num_clusters = 24
  config.score.at = 5000
  return config


def nus_wide():
  """The 21 most frequent concepts, several an image; 10,500 images to train on."""
  config = psch.default_config(
    "nus_wide", selection="tc21", num_queries=2100, num_validation=2100, num_train=10_500
  )
  defaults.on_accelerator(config, config.psch)
  config.cluster.num_clusters = 21
  config.score.at = 5000
  return config


def folder():
  """Any folder of pictures, on a CPU; class subfolders are used for scoring only."""
  config = psch.default_config("folder")
  automatic.on_any_pictures(config)
  config.psch.update(batch_size=256, learning_rate=3e-5)
  return config


PRESETS = {
  "digits": digits,
  "cifar10": cifar10,
  "cifar10_best": cifar10_best,
  "mirflickr25k": mirflickr25k,
  "nus_wide": nus_wide,
  "folder": folder,
}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/psch.py")()
