"""UDH-ECC on scikit-learn's 1,797 handwritten digits: every stage for real, in a few minutes.

python train.py --config configs/quickstart.py --workdir runs/quickstart

No weights are published for 8 x 8 digits, so the teacher is first trained without labels by
contrast between two views of an image.
"""

from udh_jax.methods import defaults, udh_ecc


def get_config():
  config = udh_ecc.default_config("digits")
  defaults.on_digits(config, config.distill)
  config.cluster.space = "neighbours"
  config.distill.steps = 600
  config.finetune.update(
    steps=150,
    batch_size=128,
    learning_rate=1e-3,
    head_learning_rate=1e-3,
    augment=config.distill.augment,
  )
  config.soft_labels.batch_size = 256
  return config
