"""What every k-means shares: costs of centroids, means of members, and the result."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax import errors, sharding
from udh_jax.arrays import Array
from udh_jax.clustering.fold import Rows, fold
from udh_jax.clustering.potentials import FoldCosts
from udh_jax.clustering.rounding import own_column
from udh_jax.numerics import matmul


class Clustering(NamedTuple):
  """Rows in clusters.

  Attributes:
    labels: Cluster of each local row, -1 where its weight is 0. int32 array of shape ``[n]``.
    centroids: Means of the members. Array of shape ``[K, d]``.
    sizes: Members over all shards. int32 array of shape ``[K]``.
    inertia: Sum over all shards of squared distances to the own centroid. Scalar.
    iterations: Number of centroid updates. Scalar int32.
    converged: Whether the last update moved no centroid by more than the tolerance. Scalar bool.
  """

  labels: jax.Array
  centroids: jax.Array
  sizes: jax.Array
  inertia: jax.Array
  iterations: jax.Array
  converged: jax.Array


def clustering_specs(rows: Any, whole: Any) -> Any:
  """What `jax.shard_map` is told of a `Clustering`: labels lie by rows, all else is whole."""
  return Clustering(rows, whole, whole, whole, whole, whole)


def fold_costs_of(rows: Rows, centroids: jax.Array) -> FoldCosts:
  """A fold that also gives its function the costs of each block.

  The cost of row i and centroid j is |x_i - m_j|^2 less |x_i|^2, which changes no assignment. The
  costs of a single block are computed once and held.
  """
  offset = jnp.sum(jnp.square(centroids), axis=1)

  def cost_of(block):
    return offset - 2 * matmul(block, centroids.T)

  whole = rows.chunk_size is None
  cost = fold(rows, lambda _, block, weights, start: cost_of(block), None) if whole else None

  def fold_costs(function, carry):
    def add(carry, block, weights, start):
      return function(carry, block, cost if whole else cost_of(block), weights, start)

    return fold(rows, add, carry)

  return fold_costs


def means(sums_and_mass: tuple[jax.Array, jax.Array], centroids: jax.Array) -> jax.Array:
  """Means of the clusters from sums ``[K, d]`` and masses ``[K]``; an empty one keeps its own."""
  sums, mass = sums_and_mass
  return jnp.where(mass[:, None] > 0, sums / jnp.where(mass > 0, mass, 1)[:, None], centroids)


def member_means(rows: Rows, labels: jax.Array, centroids: jax.Array) -> jax.Array:
  """Means of the members, ``[K, d]``; an empty cluster keeps its centroid."""
  num_clusters = centroids.shape[0]

  def add(carry, block, weights, start):
    own = lax.dynamic_slice(labels, (start,), weights.shape)
    member = own_column(own, num_clusters, weights.dtype) * weights[:, None]
    sums = matmul(member.T, block)
    return carry[0] + sums, carry[1] + jnp.sum(member, axis=0)

  start = jnp.zeros_like(centroids), jnp.zeros(num_clusters, centroids.dtype)
  return means(sharding.psum(fold(rows, add, start), rows.axis_name), centroids)


def inertia_of(rows: Rows, labels: jax.Array, centroids: jax.Array) -> jax.Array:
  """Sum of squared distances to the own centroid, from differences, so that nothing cancels."""

  def add(carry, block, weights, start):
    own = lax.dynamic_slice(labels, (start,), weights.shape)
    return carry + jnp.sum(
      weights * jnp.sum(jnp.square(block - centroids[jnp.maximum(own, 0)]), axis=1)
    )

  return sharding.psum(fold(rows, add, jnp.zeros_like(rows.scale)), rows.axis_name)


def whole_numbers(name: str, **options: Any) -> list[Any]:
  """Options as Python integers, in order; None and what is traced stay as they are.

  Args:
    name: Of the function, for the message.
    **options: By name.

  Raises:
    InputError: If one is not a whole number.
  """
  return [
    value
    if value is None or errors.is_traced(value)
    else errors.whole_number(f"{name}: {option}", value)
    for option, value in options.items()
  ]


def check_arguments(
  name: str,
  features: jax.Array,
  init: Array | None,
  weights: Array,
  *,
  num_clusters: int,
  num_restarts: int,
  **iterations: int | None,
) -> None:
  """Refuses arguments of a k-means that cannot be meant.

  Args:
    name: Of the function, for the message.
    features: Rows.
    init: Start centroids, or None.
    weights: 1, or 0 for a padded row.
    num_clusters: K.
    num_restarts: Number of runs.
    **iterations: Options that have to be 1 or more, or None.

  Raises:
    InputError: If shapes or options are out of range or, where values are known, features are not
      finite or weights are neither 0 nor 1.
  """
  require = errors.require
  errors.require_automatic(name, features, weights)
  require(
    features.ndim == 2 and features.size > 0,
    f"{name}: features have shape {features.shape}, expected [n, d] with n and d above 0.",
  )
  size, dim = features.shape
  options = {"num_clusters": num_clusters, "num_restarts": num_restarts, **iterations}
  for option, value in options.items():
    if value is None:
      continue
    require(value >= 1, f"{name}: {option} is {value}, expected 1 or more.")
  if init is not None:
    require(
      jnp.shape(init) == (num_clusters, dim),
      f"{name}: init has shape {jnp.shape(init)}, expected [num_clusters, d] = "
      f"{(num_clusters, dim)}.",
    )
    require(
      num_restarts == 1,
      f"{name}: init fixes the start, so num_restarts has to be 1, not {num_restarts}.",
    )
    errors.require_finite(f"{name}: init", init)
  require(
    jnp.shape(weights) == (size,),
    f"{name}: weights have shape {jnp.shape(weights)}, expected [n] = {(size,)}.",
  )
  if not errors.is_traced(weights):
    require(
      bool(np.isin(np.asarray(weights), (0, 1)).all()),
      f"{name}: weights hold other values than 1, and 0 for a padded row.",
    )
  if not errors.is_traced(features, weights):
    errors.require_finite(f"{name}: features", jnp.where(weights[:, None] > 0, features, 0))
