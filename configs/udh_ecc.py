"""UDH-ECC with a pre-trained teacher, on the paper's data sets and on one's own pictures.

python train.py --config configs/udh_ecc.py:PRESET --workdir runs/PRESET \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY

Presets: cifar10 (36 minutes on two CPU cores), cifar10_best (two hours), cifar10_full,
eurosat, mirflickr25k (for an accelerator; very slow on a CPU), folder. docs/results.md has scores
of cifar10, cifar10_best and folder; the others have not been measured.
"""

from udh_jax.methods import automatic, defaults, udh_ecc


def cifar10():
  """CIFAR-10 on two CPU cores; docs/results.md#clusters-in-the-graph-of-neighbours tells how."""
  config = udh_ecc.default_config("cifar10")
  config.rounds = 1
  defaults.on_two_cores(config)
  defaults.on_the_graph(config.cluster)
  config.finetune.update(steps=800, learning_rate=4e-4)
  config.distill.update(steps=400, learning_rate=3e-4)
  return config


def cifar10_best():
  """Three rounds of the same, and distillation of two passes over the images."""
  config = cifar10()
  config.rounds = 3
  config.distill.steps = 1600
  return config


def accelerated(data: str, **data_fields):
  """A long run in bfloat16 at 224 pixels: 2,000 steps of 256 images in each training."""
  config = udh_ecc.default_config(data, **data_fields)
  defaults.on_accelerator(config, config.finetune, config.distill)
  config.rounds = 3
  config.cluster.update(num_clusters=30, num_clusterings=5, num_restarts=1)
  config.finetune.learning_rate = 5e-4
  config.soft_labels.batch_size = 256
  return config


def cifar10_full():
  """CIFAR-10 with all 10,000 test images as queries."""
  config = accelerated("cifar10", num_queries=10_000)
  config.teacher.image_size = config.student.image_size = 160
  config.features.image_sizes = (160,)
  defaults.on_the_graph(config.cluster)
  return config


def eurosat():
  """EuroSAT: 100 queries a class, sizes between half and twice the mean."""
  config = accelerated("eurosat")
  # 26,000 images in 30 clusters; the ten classes have 1,900 to 2,900 images each.
  config.cluster.update(min_size=430, max_size=1730)
  return config


def mirflickr25k():
  """MIRFLICKR-25K: several labels an image, relevant if one is shared; 5,000 images to train on."""
  config = accelerated("flickr25k")
  config.cluster.num_clusters = 70
  config.score.at = 5000
  return config


def folder():
  """Any folder of pictures, on a CPU; class subfolders are used for scoring only.

  The published network stays as it is and reads every picture once, with a few views of it; what is
  learned on these takes seconds. --config.finetune.trained=last --config.distill.trained=last train
  its last blocks too.
  """
  config = udh_ecc.default_config("folder")
  automatic.on_any_pictures(config)
  config.rounds = 1
  config.cluster.update(num_clusterings=5, num_restarts=1)
  config.finetune.update(batch_size=256, head_learning_rate=3e-4)
  config.distill.update(batch_size=256, learning_rate=3e-5)
  return config


PRESETS = {
  "cifar10": cifar10,
  "cifar10_best": cifar10_best,
  "cifar10_full": cifar10_full,
  "eurosat": eurosat,
  "mirflickr25k": mirflickr25k,
  "folder": folder,
}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/udh_ecc.py")()
