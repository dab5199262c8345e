"""CIBHash, the contrastive rival, on the same teacher, images and protocol as UDH-ECC.

python train.py --config configs/cibhash.py:cifar10 --workdir runs/cibhash \
  --config.teacher.weights=hf-hub:timm/mobilenetv2_100.ra_in1k --config.data.path=DIRECTORY
"""

from udh_jax.methods import defaults


def digits():
  """The quickstart's data, teacher and student size."""
  config = defaults.cibhash("digits")
  views = defaults.augmentation(
    crop_scale=(0.6, 1.0), crop_ratio=(0.8, 1.25), padding=0.1, flip=False, color=0.2
  )
  config.teacher.update(backbone="small_convnet", weights="", image_size=8)
  config.pretrain.update(steps=200, augment=views)
  config.features.update(image_sizes=(8,), batch_size=256)
  config.student.image_size = 8
  config.contrast.update(steps=200, batch_size=128, learning_rate=1e-3, augment=views)
  config.encode.batch_size = 256
  config.score.at = 0
  return config


def cifar10():
  """CIFAR-10 on two CPU cores, with as many images seen as UDH-ECC's preset trains on."""
  config = defaults.cibhash("cifar10")
  config.contrast.steps = 600
  return config


PRESETS = {"digits": digits, "cifar10": cifar10}


def get_config(argument: str = ""):
  return defaults.choose(argument, PRESETS, "configs/cibhash.py")()
