"""Batches of few sizes: every other size is compiled anew."""

import jax
import numpy as np

from udh_jax.arrays import Array


def filled_up(rows: Array) -> Array:
  """Rows with copies of the first behind them, so that there are 1, 2, 4 or a multiple of 8.

  Args:
    rows: Array of shape ``[n, ...]`` with n of 1 or more; one of JAX stays as it is.

  Returns:
    Array of shape ``[m, ...]`` with m of n or more.
  """
  if isinstance(rows, jax.Array):
    return rows
  count = len(rows)
  wanted = 1 << (count - 1).bit_length() if count <= 8 else -(-count // 8) * 8
  return rows if wanted == count else np.concatenate([rows, np.repeat(rows[:1], wanted - count, 0)])
