"""Several runs of a k-means from random starts, and the best of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax import sharding
from udh_jax.clustering.fold import Rows, held
from udh_jax.clustering.members import Clustering
from udh_jax.clustering.seeding import k_means_plus_plus

SAME_INERTIA = 1e-5


def best_clustering(
  rows: Rows,
  cluster: Callable[[Rows, jax.Array], tuple[Any, jax.Array]],
  key: jax.Array,
  init: jax.Array | None,
  *,
  num_clusters: int,
  num_restarts: int,
  tolerance: jax.Array | float,
) -> Clustering:
  """Runs a k-means from random starts and keeps the lowest inertia.

  On a CPU one run follows the other, which compiles in half the time, and none waits for the
  slowest; elsewhere all are one batch, which fills an accelerator.

  Args:
    rows: From `standardise`.
    cluster: Rows and start centroids to where a run ends (``labels``, ``centroids``,
      ``iterations`` and ``shift``, the largest squared move of the last update) and its inertia.
    key: Random key for the seeding.
    init: Start centroids instead, in the units of the features, or None.
    num_clusters: K.
    num_restarts: Number of runs.
    tolerance: A run whose last update moved no centroid by more has converged.
  """
  mean, scale, axis_name = rows.mean, rows.scale, rows.axis_name
  rows = held(rows)

  def run(key):
    if init is None:
      return cluster(rows, k_means_plus_plus(rows, num_clusters, key))
    return cluster(rows, (jnp.asarray(init, mean.dtype) - mean) / scale)

  if num_restarts == 1:
    result, inertia = run(key)
  else:
    keys = jax.random.split(key, num_restarts)
    one_by_one = jax.default_backend() == "cpu"
    result, inertia = best_run(*(lax.map(run, keys) if one_by_one else jax.vmap(run)(keys)))
  return Clustering(
    result.labels,
    result.centroids * scale + mean,
    sizes_of(result.labels, num_clusters, axis_name),
    inertia * scale * scale,
    result.iterations,
    result.shift <= tolerance**2,
  )


def sizes_of(labels: jax.Array, num_clusters: int, axis_name: str | None) -> jax.Array:
  """Members of each cluster over all shards, int32 of shape ``[K]``."""
  sizes = jnp.zeros(num_clusters, jnp.int32).at[jnp.maximum(labels, 0)].add(labels >= 0)
  return sharding.psum(sizes, axis_name)


def best_run(runs: Any, inertias: jax.Array) -> tuple[Any, jax.Array]:
  """The run of lowest inertia.

  Runs that end alike are told apart by rounding alone: the first of them wins, on any shards.

  Args:
    runs: Pytree of arrays with one leading entry a run.
    inertias: Array of shape ``[runs]``.

  Returns:
    That run and its inertia.
  """
  best = jnp.argmax(inertias <= jnp.min(inertias) * (1 + SAME_INERTIA))
  return jax.tree.map(lambda leaf: leaf[best], (runs, inertias))
