"""k-means with clusters of any size."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax import errors, sharding
from udh_jax.arrays import Array
from udh_jax.clustering.fold import Rows, fold, standardise
from udh_jax.clustering.members import (
  Clustering,
  check_arguments,
  fold_costs_of,
  inertia_of,
  member_means,
  whole_numbers,
)
from udh_jax.clustering.restarts import best_clustering
from udh_jax.numerics import at_least_float32


class _Run(NamedTuple):
  """Where a run from given centroids stands."""

  centroids: jax.Array  # [K, d]
  labels: jax.Array  # int32 [n]
  iterations: jax.Array
  shift: jax.Array  # Largest squared move of a centroid in the last update.
  settled: jax.Array  # Whether the last update changed no label.


def _nearest(rows: Rows, centroids: jax.Array) -> jax.Array:
  """Index of the nearest centroid, up to rounding; -1 for masked rows."""

  def add(labels, block, cost, weights, start):
    old = lax.dynamic_slice(labels, (start,), weights.shape)
    new = jnp.where(weights > 0, jnp.argmin(cost, axis=1).astype(jnp.int32), old)
    return lax.dynamic_update_slice(labels, new, (start,))

  return fold_costs_of(rows, centroids)(add, jnp.full(rows.weights.shape, -1, jnp.int32))


def _cluster(rows: Rows, centroids: jax.Array, max_iterations: int) -> tuple[_Run, jax.Array]:
  """Lloyd's updates from start centroids, and the inertia they end with."""

  def update(run):
    labels = _nearest(rows, run.centroids)
    centroids = member_means(rows, labels, run.centroids)
    changed = sharding.psum(jnp.sum(labels != run.labels), rows.axis_name)
    shift = jnp.max(jnp.sum(jnp.square(centroids - run.centroids), axis=1))
    return _Run(centroids, labels, run.iterations + 1, shift, changed == 0)

  labels = sharding.varying(jnp.full(rows.weights.shape, -1, jnp.int32), rows.axis_name)
  run = _Run(centroids, labels, jnp.int32(0), jnp.full_like(rows.scale, jnp.inf), jnp.bool_(False))
  run = lax.while_loop(lambda run: (run.iterations < max_iterations) & ~run.settled, update, run)
  return run, inertia_of(rows, run.labels, run.centroids)


def kmeans(
  features: Array,
  num_clusters: int,
  *,
  key: jax.Array,
  init: Array | None = None,
  num_restarts: int = 1,
  max_iterations: int = 100,
  weights: Array | None = None,
  axis_name: str | None = None,
  chunk_size: int | None = 65536,
  tolerance: float = 1e-4,
) -> Clustering:
  """Splits rows into clusters of small inertia, by Lloyd's updates until no label changes.

  A cluster that loses all its rows keeps its centroid. The key and ``init`` must be the same on
  every shard; then so is the result, up to rounding, on any number of shards. Where centroids are
  equally near to a row, as with features of whole numbers, rounding says which is taken.

  Args:
    features: Finite float rows, of any offset and scale. Array of shape ``[n, d]``; with
      ``axis_name`` the rows of this shard, the same number on each.
    num_clusters: K, from 1 to the number of rows that are not masked. Static.
    key: Random key for the seeding.
    init: Start centroids instead of k-means++. Array of shape ``[K, d]``, with one restart.
    num_restarts: Independent runs; the lowest inertia wins. Static.
    max_iterations: Most centroid updates, 1 or more. Static.
    weights: 1, or 0 for a padded row, which gets label -1 and counts nowhere. Array of shape
      ``[n]``; all 1 by default.
    axis_name: Mapped axis over which rows are sharded, or None.
    chunk_size: Rows whose distances to all centroids are held at once; None for all. Static.
    tolerance: Share of the rows' root mean square distance to their mean. The result has converged
      when the last update moved no centroid by more.

  Returns:
    A `Clustering`; its centroids are the means of the members.

  Raises:
    InputError: If shapes or options are out of range or, where values are known, features are not
      finite or there are fewer rows than clusters.

  References:
    Lloyd, Least squares quantization in PCM, IEEE Trans. Information Theory, 1982.
  """
  num_clusters, num_restarts, max_iterations, chunk_size = whole_numbers(
    "kmeans",
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    max_iterations=max_iterations,
    chunk_size=chunk_size,
  )
  errors.require_number("kmeans: tolerance", tolerance, 0)
  errors.require_key("kmeans", key)
  features = at_least_float32(features)
  kept = np.ones(len(features), np.float32) if weights is None else jnp.asarray(weights)
  check_arguments(
    "kmeans",
    features,
    init,
    kept,
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    max_iterations=max_iterations,
    chunk_size=chunk_size,
  )
  if axis_name is None and not errors.is_traced(kept):
    total = int((np.asarray(kept) > 0).sum())
    errors.require(
      total >= num_clusters,
      f"kmeans: {total} rows cannot fill {num_clusters} clusters; give more rows or fewer "
      "clusters.",
    )
  return _kmeans(
    features,
    (kept > 0).astype(features.dtype),
    key,
    init,
    tolerance,
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    max_iterations=max_iterations,
    axis_name=axis_name,
    chunk_size=chunk_size,
  )


@functools.partial(
  jax.jit,
  static_argnames=("num_clusters", "num_restarts", "max_iterations", "axis_name", "chunk_size"),
)
def _kmeans(
  features,
  weights,
  key,
  init,
  tolerance,
  *,
  num_clusters,
  num_restarts,
  max_iterations,
  axis_name,
  chunk_size,
):
  """The part that is compiled, also for callers outside `jit`."""
  rows = standardise(features, weights, chunk_size, axis_name)
  return best_clustering(
    rows,
    lambda rows, centroids: _cluster(rows, centroids, max_iterations),
    key,
    init,
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    tolerance=tolerance,
  )


def own_distances(
  features: jax.Array,
  labels: jax.Array,
  centroids: jax.Array,
  *,
  chunk_size: int | None = 65536,
  axis_name: str | None = None,
) -> jax.Array:
  """Distance of each row to the centroid of its cluster.

  Args:
    features: Array of shape ``[n, d]``.
    labels: Cluster of each row, or -1. Integer array of shape ``[n]``.
    centroids: Array of shape ``[K, d]``.
    chunk_size: Rows that are read at once; None for all. Static.
    axis_name: Mapped axis over which rows are sharded, or None; nothing travels.

  Returns:
    Euclidean distances, 0 where the label is -1. Array of shape ``[n]``.

  Raises:
    InputError: If the shapes disagree or, where values are known, a label is not in -1..K-1.
  """
  features, labels, centroids = map(jnp.asarray, (features, labels, centroids))
  errors.require(
    features.ndim == 2
    and labels.shape == features.shape[:1]
    and centroids.shape[1:] == features.shape[1:],
    f"own_distances: features, labels and centroids have shapes {features.shape}, {labels.shape} "
    f"and {centroids.shape}, expected [n, d], [n] and [K, d].",
  )
  errors.require_labels("own_distances", labels, len(centroids))
  features = at_least_float32(features)
  zero, one = jnp.zeros(features.shape[1], features.dtype), jnp.ones((), features.dtype)
  weights = (labels >= 0).astype(features.dtype)
  rows = Rows(features, weights, zero, one, chunk_size, axis_name)

  def add(distances, block, weights, start):
    own = lax.dynamic_slice(labels, (start,), weights.shape)
    squares = jnp.sum(jnp.square(block - centroids[jnp.maximum(own, 0)]), axis=1)
    old = lax.dynamic_slice(distances, (start,), weights.shape)
    new = jnp.where(weights > 0, jnp.sqrt(squares), old)
    return lax.dynamic_update_slice(distances, new, (start,))

  return fold(rows, add, jnp.zeros_like(weights))
