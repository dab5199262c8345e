"""What the codes of pairs of a batch are trained to be."""

import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.losses.reduction import row_weights
from udh_jax.numerics import at_least_float32, matmul


def pair_loss(
  outputs: jax.Array,
  targets: jax.Array,
  pair_weights: jax.Array,
  *,
  weights: jax.Array | None = None,
) -> jax.Array:
  """Mean over the pairs of a batch of w_ij (u_i . u_j / c - T_ij)^2.

  The mean is over all pairs, those of weight 0 too: where little is known, little is learned. An
  image's pair with itself is one of them.

  Args:
    outputs: Relaxed codes u. Array of shape ``[m, c]``.
    targets: T. Array of shape ``[m, m]``.
    pair_weights: w. Array of shape ``[m, m]``.
    weights: Weight of each row; a pair of rows has the product. Array of shape ``[m]``; None
      weighs all alike.

  Returns:
    float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shapes disagree.

  References:
    Yang et al., Semantic structure-based unsupervised deep hashing, IJCAI 2018, equation 6, and its
    code; PSCH's use of it is our own.
  """
  outputs, targets, pair_weights = (
    at_least_float32(array) for array in (outputs, targets, pair_weights)
  )
  require(
    outputs.ndim == 2 and targets.shape == pair_weights.shape == (len(outputs),) * 2,
    f"pair_loss: outputs, targets and pair weights have shapes {outputs.shape}, {targets.shape} "
    f"and {pair_weights.shape}, expected [m, c], [m, m] and [m, m].",
  )
  weights = row_weights(weights, len(outputs), outputs.dtype)
  outputs = jnp.where(weights[:, None] > 0, outputs, 0)
  similarity = matmul(outputs, outputs.T) / outputs.shape[1]
  both = weights[:, None] * weights
  squares = jnp.where(both > 0, pair_weights * (similarity - targets) ** 2, 0)
  total = jnp.sum(both)
  return jnp.sum(both * squares) / jnp.where(total > 0, total, 1)
