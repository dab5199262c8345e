"""Cosines of the rows of a batch."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.numerics import at_least_float32, matmul


def unit_rows(rows: jax.Array) -> jax.Array:
  """Rows scaled to length 1; a row of zeros stays one, with a finite gradient.

  Args:
    rows: Of lengths from 1e-6, below which they are scaled by 1e6, to 1e19. Array of shape
      ``[m, d]``.

  Returns:
    float32 array of shape ``[m, d]`` (float64 stays).
  """
  rows = at_least_float32(rows)
  return rows * lax.rsqrt(jnp.maximum(jnp.sum(rows**2, axis=1, keepdims=True), 1e-12))


def cosines(first: jax.Array, second: jax.Array) -> jax.Array:
  """Cosine of every row of one array with every row of another; 0 with a row of zeros.

  Args:
    first: Array of shape ``[m, d]``.
    second: Array of shape ``[k, d]``.

  Returns:
    float32 array of shape ``[m, k]`` (float64 stays).
  """
  return matmul(unit_rows(first), unit_rows(second).T)
