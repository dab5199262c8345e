"""UDH-ECC with a pre-trained teacher, on the paper's data sets and on one's own pictures.

python train.py --config configs/udh_ecc.py:cifar10 --workdir runs/cifar10 \
  --config.teacher.weights=mobilenetv2_100.safetensors --config.data.path=TFDS_DIRECTORY
"""

from udh_jax.methods import defaults


def cifar10():
  """CIFAR-10 on two CPU cores: 40 minutes."""
  return defaults.udh_ecc("cifar10")


PRESETS = {"cifar10": cifar10}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/udh_ecc.py")()
