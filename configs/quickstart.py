"""UDH-ECC on scikit-learn's 1,797 handwritten digits: every stage for real, in a few minutes.

python train.py --config configs/quickstart.py --workdir runs/quickstart

No weights are published for 8 x 8 digits, so the teacher is first trained without labels by
contrast between two views of an image.
"""

from udh_jax.methods import defaults


def get_config():
  config = defaults.udh_ecc("digits")
  size = 8
  digits = defaults.augmentation(
    crop_scale=(0.6, 1.0), crop_ratio=(0.8, 1.25), padding=0.1, flip=False, color=0.2
  )
  config.teacher.update(backbone="small_convnet", weights="", image_size=size)
  config.pretrain.update(steps=200, augment=digits)
  config.features.update(image_sizes=(size,), batch_size=256)
  config.finetune.update(
    steps=150, batch_size=128, learning_rate=1e-3, head_learning_rate=1e-3, augment=digits
  )
  config.soft_labels.batch_size = 256
  config.student.update(backbone="small_convnet", image_size=size)
  config.distill.update(
    steps=200, batch_size=128, learning_rate=1e-3, head_learning_rate=3e-3, augment=digits
  )
  config.encode.batch_size = 256
  config.score.at = 0
  return config
