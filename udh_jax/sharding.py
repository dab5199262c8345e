"""Rows over devices, and reductions over a mapped axis that may be absent.

So kernels are written once, for one device and for many.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from udh_jax.numerics import matmul


def psum(tree: Any, axis_name: str | None) -> Any:
  """Sum over the shards; the identity where `axis_name` is None."""
  return tree if axis_name is None else lax.psum(tree, axis_name)


def pmax(tree: Any, axis_name: str | None) -> Any:
  """Maximum over the shards; the identity where `axis_name` is None."""
  return tree if axis_name is None else lax.pmax(tree, axis_name)


def pmin(tree: Any, axis_name: str | None) -> Any:
  """Minimum over the shards; the identity where `axis_name` is None."""
  return tree if axis_name is None else lax.pmin(tree, axis_name)


def mean_of_rows(
  rows: jax.Array, weights: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
  """sum_i w_i x_i / sum_i w_i over the rows of all shards; NaN where all weights are 0.

  Args:
    rows: Array of shape ``[n, d]``.
    weights: Array of shape ``[n]``.
    axis_name: Mapped axis that the rows are split over, or None.

  Returns:
    The mean ``[d]``, and the sum of the weights.
  """
  total, count = psum((matmul(weights, rows), weights.sum()), axis_name)
  return total / count, count


def row_indices(num_rows: int, axis_name: str | None) -> jax.Array:
  """Global indices of the local rows, int32 of shape ``[num_rows]``.

  What depends on a row's place (random draws, the order of ties) uses these, so that it is the same
  however many shards there are.
  """
  start = 0 if axis_name is None else lax.axis_index(axis_name) * num_rows
  return jnp.arange(num_rows, dtype=jnp.int32) + start


def varying(tree: Any, axis_name: str | None) -> Any:
  """The same values, typed as differing between shards, as a loop's carry has to be beforehand.

  Choosing by the shard's index marks leaves that are constant and leaves that vary already alike,
  which `lax.pcast` refuses.
  """
  if axis_name is None:
    return tree
  always = lax.axis_index(axis_name) >= 0
  return jax.tree.map(lambda leaf: jnp.where(always, leaf, leaf), tree)


def split_rows(mesh: Mesh, array: np.ndarray, *, fill: Any = 0) -> jax.Array:
  """Lays host rows ``[n, ...]``, which every process holds, out over the devices.

  Args:
    mesh: Devices with one axis.
    array: Array of shape ``[n, ...]``.
    fill: What stands in the rows after the last, which make the blocks of all devices equal.

  Returns:
    Array of shape ``[padded rows, ...]``; at least one row a device.
  """
  array = np.asarray(array)
  (axis,) = mesh.axis_names
  rows = mesh.size * max(1, -(-len(array) // mesh.size))
  padded = np.full((rows, *array.shape[1:]), fill, array.dtype)
  padded[: len(array)] = array
  sharding = NamedSharding(mesh, PartitionSpec(axis))
  return jax.make_array_from_callback(padded.shape, sharding, lambda index: padded[index])
