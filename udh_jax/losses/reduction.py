"""Weighted means, by which every loss of this package becomes one number."""

import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.numerics import at_least_float32


def row_weights(weights: jax.Array | None, num_rows: int, dtype: jax.typing.DTypeLike) -> jax.Array:
  """The weight of each row of a batch.

  Args:
    weights: Array of shape ``[num_rows]``; None weighs all alike.
    num_rows: m.
    dtype: Of the weights where there are none.

  Returns:
    Array of shape ``[m]``, float32 at least: sums of many are beyond float16.

  Raises:
    InputError: If the weights are not of shape ``[m]``.
  """
  if weights is None:
    return jnp.ones(num_rows, dtype)
  weights = at_least_float32(weights)
  require(
    weights.shape == (num_rows,),
    f"weights have shape {weights.shape}, the batch has {num_rows} rows; expected [{num_rows}].",
  )
  return weights


def weighted_mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
  """sum_i w_i v_i / sum_i w_i along the first axis, and 0 where all weights are 0.

  A row of weight 0 is left out even if its value is not finite; what such a value was made of may
  have a gradient that is not.

  Args:
    values: Array of shape ``[m, ...]``.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Array of shape ``[...]``.

  Raises:
    InputError: If the weights are not of shape ``[m]``.
  """
  weights = row_weights(weights, values.shape[0], values.dtype)
  total = weights.astype(values.dtype).sum()
  weights = weights.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
  summed = jnp.sum(weights * jnp.where(weights > 0, values, 0), axis=0)
  return summed / jnp.where(total > 0, total, 1)
