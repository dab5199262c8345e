"""UDH-ECC with a pre-trained teacher, on the paper's data sets and on one's own pictures.

python train.py --config configs/udh_ecc.py:cifar10 --workdir runs/cifar10 \
  --config.teacher.weights=mobilenetv2_100.safetensors --config.data.path=TFDS_DIRECTORY
"""

from udh_jax.methods import defaults


def cifar10():
  """CIFAR-10 on two CPU cores: at most 40 minutes.

  100 clusters and not 10: chosen on held-out images of the database, where they brought ITQ on the
  teacher's features after one round to .670, and 10 clusters to .625.
  """
  config = defaults.udh_ecc("cifar10")
  config.cluster.update(num_clusters=100, num_restarts=2, max_iterations=30)
  config.finetune.update(steps=400, learning_rate=5e-4, trusted_fraction=0.7)
  config.distill.update(steps=400, learning_rate=3e-4)
  return config


PRESETS = {"cifar10": cifar10}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/udh_ecc.py")()
