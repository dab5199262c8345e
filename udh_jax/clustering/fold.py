"""Passes over rows of features in blocks, so that n x K values need never be held."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax import sharding


class Rows(NamedTuple):
  """The local rows and how to read them.

  Attributes:
    features: Array of shape ``[n, d]``.
    weights: 1, or 0 for a padded row. Array of shape ``[n]``.
    mean: Subtracted from features as they are read. Array of shape ``[d]``.
    scale: Divides features as they are read. Scalar.
    chunk_size: Rows in a block; None for one block of all.
    axis_name: Mapped axis over which rows are sharded, or None.
  """

  features: jax.Array
  weights: jax.Array
  mean: jax.Array
  scale: jax.Array
  chunk_size: int | None
  axis_name: str | None


def _read(rows, features, weights):
  """Centred and scaled features; zeros for padded rows, whatever they hold."""
  return jnp.where(weights[:, None] > 0, (features - rows.mean) / rows.scale, 0)


def fold(
  rows: Rows, function: Callable[[Any, jax.Array, jax.Array, jax.Array], Any], carry: Any
) -> Any:
  """Runs a function over all local blocks of rows.

  The last block is moved back so that it ends with the rows, and the rows that it shares with the
  block before come with weight 0 the second time: no padded copy of the features is made.

  Args:
    rows: The rows.
    function: ``(carry, features [m, d], weights [m], start) -> carry``, for the rows from ``start``
      on. Features come centred and scaled.
    carry: Start value.

  Returns:
    The last carry.
  """
  size, dim = rows.features.shape
  chunk = size if rows.chunk_size is None else min(rows.chunk_size, size)
  carry = sharding.varying(carry, rows.axis_name)

  def block(index, carry):
    start = jnp.minimum(index * chunk, size - chunk)
    features = lax.dynamic_slice(rows.features, (start, 0), (chunk, dim))
    weights = lax.dynamic_slice(rows.weights, (start,), (chunk,))
    features = _read(rows, features, weights)
    weights = jnp.where(start + jnp.arange(chunk) >= index * chunk, weights, 0)
    return function(carry, features, weights, start)

  if chunk == size:
    return function(carry, _read(rows, rows.features, rows.weights), rows.weights, jnp.int32(0))
  return lax.fori_loop(0, -(-size // chunk), block, carry)


def standardise(
  features: jax.Array, weights: jax.Array, chunk_size: int | None, axis_name: str | None
) -> Rows:
  """Rows whose mean is 0 and whose mean squared norm is 1, as far as float32 allows.

  Sums run over values that are small by then: scaled by the largest, then centred by a first mean.
  So neither a shared offset nor the scale costs precision.

  Args:
    features: Array of shape ``[n, d]``.
    weights: Array of shape ``[n]``.
    chunk_size: Rows in a block; None for one block of all.
    axis_name: Mapped axis over which rows are sharded, or None.

  Returns:
    The rows.
  """
  zero = jnp.zeros(features.shape[1], features.dtype)
  chunked = chunk_size is not None and chunk_size < features.shape[0]
  rows = Rows(
    features, weights, zero, jnp.ones_like(zero[0]), chunk_size if chunked else None, axis_name
  )
  count = jnp.maximum(sharding.psum(jnp.sum(weights), axis_name), 1)

  def largest(rows):
    def add(carry, block, weights, start):
      return jnp.maximum(carry, jnp.max(jnp.abs(block)))

    top = sharding.pmax(fold(rows, add, jnp.zeros_like(rows.scale)), axis_name)
    return jnp.where(top > 0, top, 1)

  def mean_of(function, rows, init):
    def add(carry, block, weights, start):
      return carry + jnp.sum(jnp.where(weights[:, None] > 0, function(block), 0), axis=0)

    return sharding.psum(fold(rows, add, init), axis_name) / count

  unit = largest(rows)
  mean = mean_of(lambda block: block / unit, rows, zero) * unit
  unit = largest(rows._replace(mean=mean))
  mean = mean + mean_of(lambda block: block / unit, rows._replace(mean=mean), zero) * unit
  unit = largest(rows._replace(mean=mean))
  spread = jnp.sum(mean_of(jnp.square, rows._replace(mean=mean, scale=unit), zero))
  return rows._replace(mean=mean, scale=unit * jnp.where(spread > 0, jnp.sqrt(spread), 1))


def held(rows: Rows) -> Rows:
  """The same rows with features centred and scaled in memory, if they are read in one block."""
  if rows.chunk_size is not None:
    return rows
  return rows._replace(
    features=_read(rows, rows.features, rows.weights),
    mean=jnp.zeros_like(rows.mean),
    scale=jnp.ones_like(rows.scale),
  )
