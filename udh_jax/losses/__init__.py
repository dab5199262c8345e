"""Pure loss functions."""

from udh_jax.losses.classification import (
  distillation_loss,
  smoothed_cross_entropy,
  soft_cross_entropy,
)
from udh_jax.losses.contrastive import nt_xent
from udh_jax.losses.regularisers import bit_balance_loss, quantisation_loss

__all__ = [
  "bit_balance_loss",
  "distillation_loss",
  "nt_xent",
  "quantisation_loss",
  "smoothed_cross_entropy",
  "soft_cross_entropy",
]
