"""How every loss of this room becomes one number."""

import jax
import jax.numpy as jnp

from udh_jax.errors import require


def weighted_mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
  """sum_i w_i v_i / sum_i w_i along the first axis, and 0 where all weights are 0.

  A row of weight 0 is left out even if its value is not finite.

  Args:
    values: Array of shape ``[m, ...]``.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Array of shape ``[...]``.

  Raises:
    InputError: If the weights are not of shape ``[m]``.
  """
  if weights is None:
    weights = jnp.ones(values.shape[0], values.dtype)
  weights = jnp.asarray(weights)
  require(
    weights.shape == values.shape[:1],
    f"weights have shape {weights.shape}, the batch has {values.shape[0]} rows; expected "
    f"[{values.shape[0]}].",
  )
  total = weights.astype(values.dtype).sum()
  weights = weights.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
  summed = jnp.sum(weights * jnp.where(weights > 0, values, 0), axis=0)
  return summed / jnp.where(total > 0, total, 1)
