"""Arithmetic that is the same on every kind of device."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax.arrays import Array


def at_least_float32(x: Array) -> jax.Array:
  """Casts to float32 whatever is narrower: a mean over a batch loses bits in bfloat16.

  Args:
    x: Array of any shape and real dtype.

  Returns:
    The same values in float32, or in float64 if they were.
  """
  x = jnp.asarray(x)
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def in_float32(tree: Any) -> Any:
  """Casts the floating arrays of a tree to float32, as networks hold them; others stay."""

  def cast(leaf):
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return leaf.astype(jnp.float32, copy=False) if floating else leaf

  return jax.tree.map(cast, tree)


def with_fixed_signs(vectors: Any) -> Any:
  """Columns whose sign is arbitrary, each with its largest entry positive, as on every machine.

  Args:
    vectors: Eigenvectors, one a column. JAX or NumPy array of shape ``[d, c]``.

  Returns:
    Of the same kind and shape.
  """
  largest = vectors[abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
  return vectors * (1 - 2 * (largest < 0)).astype(vectors.dtype)


def matmul(first: jax.Array, second: jax.Array) -> jax.Array:
  """The matrix product in full float32.

  Accelerators round the factors of float32 products to fewer bits by default, which is enough to
  change a sign, a nearest centroid or the order of two cosines.

  Args:
    first: Array of shape ``[..., n, k]`` or ``[k]``.
    second: Array of shape ``[..., k, m]`` or ``[k]``.

  Returns:
    Array as of `jax.numpy.matmul`.
  """
  return jnp.matmul(first, second, precision=lax.Precision.HIGHEST)
