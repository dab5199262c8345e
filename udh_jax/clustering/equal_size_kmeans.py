"""k-means with clusters of equal, or bounded, size."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax import errors, sharding
from udh_jax.arrays import Array
from udh_jax.clustering import sinkhorn
from udh_jax.clustering.fold import Rows, standardise
from udh_jax.clustering.members import (
  Clustering,
  check_arguments,
  fold_costs_of,
  inertia_of,
  means,
  member_means,
  whole_numbers,
)
from udh_jax.clustering.potentials import solve_potentials
from udh_jax.clustering.restarts import best_clustering
from udh_jax.clustering.rounding import round_to_sizes
from udh_jax.numerics import at_least_float32, matmul

# Regularisation relative to the mean squared distance of a row to its nearest centroid, except for
# the first, which is relative to the mean squared norm of the rows and finds potentials from 0.
FIRST_EPSILON = 0.2
SMALLEST = 1e-6  # Least such distance, relative to the mean squared norm; float32 sees no less.
# The plan's means follow the potentials, which have to be the same on any number of shards up to
# rounding; labels are rounded exactly from potentials that are nearly right.
SOFT_TOLERANCE = 1e-4
HARD_TOLERANCE = 1e-2
MAX_PASSES = 40  # Over the rows for one assignment; two to five are usual.


def _plan_means(fold_costs, rows, centroids, potential, epsilon):
  """Means of the rows, weighted with the plan whose rows sum to 1."""

  def add(carry, block, cost, weights, start):
    kernel, total, _ = sinkhorn.row_kernel(cost, potential, epsilon)
    plan = kernel * (weights / total)[:, None]
    sums = matmul(plan.T, block)
    return carry[0] + sums, carry[1] + jnp.sum(plan, axis=0)

  start = jnp.zeros_like(centroids), jnp.zeros_like(potential)
  return means(sharding.psum(fold_costs(add, start), rows.axis_name), centroids)


def _nearest_distance(fold_costs, rows):
  """Mean squared distance to the nearest centroid. The mean squared norm of the rows is 1."""

  def add(carry, block, cost, weights, start):
    nearest = jnp.min(cost, axis=1) + jnp.sum(jnp.square(block), axis=1)
    return carry + jnp.sum(jnp.maximum(nearest, 0) * weights)

  total = fold_costs(add, jnp.zeros_like(rows.scale)), jnp.sum(rows.weights)
  distance, count = sharding.psum(total, rows.axis_name)
  return jnp.maximum(distance / count, SMALLEST)


class _Run(NamedTuple):
  """Where a run from given centroids stands."""

  centroids: jax.Array  # [K, d]
  potential: jax.Array  # [K]
  labels: jax.Array  # int32 [n]
  iterations: jax.Array
  shift: jax.Array  # Largest squared move of a centroid in the last update.
  settled: jax.Array  # Whether more updates of the kind would change nothing that counts.


def _cluster(
  rows: Rows,
  centroids: jax.Array,
  bounds: tuple[jax.Array, jax.Array],
  columns: sinkhorn.Columns,
  epsilon_start: jax.Array,
  epsilon: jax.Array,
  tolerance: jax.Array,
  *,
  max_iterations: int,
  hard_iterations: int,
) -> tuple[_Run, jax.Array]:
  """One run from start centroids: soft updates while epsilon falls, then hard ones."""
  axis_name = rows.axis_name
  soft_iterations = max_iterations - hard_iterations
  # Centroids follow the falling epsilon for two thirds of the soft updates, then settle.
  falling = max(1, 2 * soft_iterations // 3)

  def solve(fold_costs, run, first, epsilon, tolerance):
    return solve_potentials(
      fold_costs,
      run.potential,
      columns,
      weights=rows.weights,
      epsilon_start=jnp.where(run.iterations == 0, first, epsilon),
      epsilon=epsilon,
      tolerance=tolerance,
      max_passes=MAX_PASSES,
      axis_name=axis_name,
    )

  def largest_move(centroids, run):
    return jnp.max(jnp.sum(jnp.square(centroids - run.centroids), axis=1))

  def soft_update(run):
    fold_costs = fold_costs_of(rows, run.centroids)
    share = jnp.minimum(run.iterations / falling, 1)
    level = epsilon_start * (epsilon / epsilon_start) ** share
    level = level * _nearest_distance(fold_costs, rows)
    potential = solve(fold_costs, run, FIRST_EPSILON, level, SOFT_TOLERANCE)
    centroids = _plan_means(fold_costs, rows, run.centroids, potential, level)
    shift = largest_move(centroids, run)
    settled = (shift <= tolerance**2) & (run.iterations >= falling)
    return _Run(centroids, potential, run.labels, run.iterations + 1, shift, settled)

  def hard_update(run):
    fold_costs = fold_costs_of(rows, run.centroids)
    level = epsilon * _nearest_distance(fold_costs, rows)
    first = FIRST_EPSILON if soft_iterations == 0 else level
    potential = solve(fold_costs, run, first, level, HARD_TOLERANCE)
    labels = round_to_sizes(fold_costs, potential, bounds, rows.weights, axis_name)
    centroids = member_means(rows, labels, run.centroids)
    changed = sharding.psum(jnp.sum(labels != run.labels), axis_name)
    shift = largest_move(centroids, run)
    return _Run(centroids, potential, labels, run.iterations + 1, shift, changed == 0)

  potential = jnp.zeros(centroids.shape[0], centroids.dtype)
  labels = sharding.varying(jnp.full(rows.weights.shape, -1, jnp.int32), axis_name)
  run = _Run(
    centroids, potential, labels, jnp.int32(0), jnp.full_like(rows.scale, jnp.inf), jnp.bool_(False)
  )
  run = lax.while_loop(
    lambda run: (run.iterations < soft_iterations) & ~run.settled, soft_update, run
  )
  run = run._replace(settled=jnp.bool_(False))
  run = lax.while_loop(
    lambda run: (run.iterations < max_iterations) & ~run.settled, hard_update, run
  )
  return run, inertia_of(rows, run.labels, run.centroids)


def require_sizes(
  name: str, num_clusters: int, min_size: int | None, max_size: int | None, total: int
) -> None:
  """Refuses numbers of rows that cannot be shared out as asked.

  Args:
    name: Who asks, for the message.
    num_clusters: K.
    min_size: Fewest rows of a cluster, or None.
    max_size: Most rows of a cluster, or None.
    total: How many rows there are.

  Raises:
    InputError: If there is no such clustering.
  """
  if min_size is None and max_size is None:
    errors.require(
      total >= num_clusters,
      f"{name}: {total} rows cannot fill {num_clusters} clusters; "
      "give more rows or fewer clusters.",
    )
    return
  low = 0 if min_size is None else min_size
  high = total if max_size is None else max_size
  errors.require(
    0 <= low <= high and low * num_clusters <= total <= high * num_clusters,
    f"{name}: sizes from {low} to {high} cannot hold {total} rows in {num_clusters} "
    f"clusters; expected 0 <= min_size <= {total / num_clusters:g} <= max_size.",
  )


def equal_size_kmeans(
  features: Array,
  num_clusters: int,
  *,
  key: jax.Array,
  init: Array | None = None,
  num_restarts: int = 1,
  max_iterations: int = 30,
  min_size: int | None = None,
  max_size: int | None = None,
  weights: Array | None = None,
  axis_name: str | None = None,
  chunk_size: int | None = 65536,
  epsilon_start: float = 0.05,
  epsilon: float = 0.005,
  hard_iterations: int = 10,
  tolerance: float = 1e-3,
) -> Clustering:
  """Splits rows into clusters of equal size, or of bounded size, with small inertia.

  Each update assigns the rows by entropic optimal transport at a falling epsilon and moves the
  centroids to the plan-weighted means; the last ``hard_iterations`` updates round the plan to exact
  sizes and take the means of the members, until no label changes. The key, ``init`` and the bounds
  must be the same on every shard; then so is the result, up to rounding, on any number of shards.
  Where clusters are equally near to a row, as with features of whole numbers, rounding says which.

  Args:
    features: Finite float rows, of any offset and scale. Array of shape ``[n, d]``; with
      ``axis_name`` the rows of this shard, the same number on each.
    num_clusters: K, from 1 to the number of rows that are not masked. Static.
    key: Random key for the seeding.
    init: Start centroids instead of k-means++. Array of shape ``[K, d]``, with one restart.
    num_restarts: Independent runs; the lowest inertia wins. Static.
    max_iterations: Most centroid updates in all, 1 or more. Static.
    min_size: Fewest members of a cluster; the floor of n / K where neither bound is given, 0 where
      only the other is.
    max_size: Most members of a cluster; the ceiling of n / K where neither bound is given, n where
      only the other is.
    weights: 1, or 0 for a padded row, which gets label -1 and counts nowhere. Array of shape
      ``[n]``; all 1 by default.
    axis_name: Mapped axis over which rows are sharded, or None.
    chunk_size: Rows whose distances to all centroids are held at once; None for all of them. Fewer
      than n costs time: distances are computed again for each Sinkhorn iteration. Static.
    epsilon_start: Regularisation of the first update, as a share of the mean squared distance of a
      row to its nearest centroid.
    epsilon: Regularisation of the last soft update and of the hard ones, likewise.
    hard_iterations: Updates kept for exact sizes, 1 or more; all where ``max_iterations`` is less.
      Soft ones that end early leave theirs to them. Static.
    tolerance: Share of the rows' root mean square distance to their mean. Soft updates end early,
      and the result has converged, when no centroid moves by more.

  Returns:
    A `Clustering`.

  Raises:
    InputError: If shapes or options are out of range or, where values are known, features are not
      finite or the sizes cannot be met.

  References:
    The balanced assignment as optimal transport: Asano et al., Self-labelling via simultaneous
    clustering and representation learning, ICLR 2020, section 3. Annealing, rounding and stopping
    are our own definition.
  """
  num_clusters, num_restarts, max_iterations, hard_iterations, chunk_size = whole_numbers(
    "equal_size_kmeans",
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    max_iterations=max_iterations,
    hard_iterations=hard_iterations,
    chunk_size=chunk_size,
  )
  min_size, max_size = whole_numbers("equal_size_kmeans", min_size=min_size, max_size=max_size)
  if isinstance(max_size, int):
    max_size = min(max_size, np.iinfo(np.int32).max)  # no more rows can be counted
  for name, value in (("epsilon_start", epsilon_start), ("epsilon", epsilon)):
    errors.require(
      errors.is_traced(value) or value > 0,
      f"equal_size_kmeans: {name} is {value}, expected more than 0.",
    )
  errors.require(
    errors.is_traced(tolerance) or tolerance >= 0,
    f"equal_size_kmeans: tolerance is {tolerance}, expected 0 or more.",
  )
  errors.require_key("equal_size_kmeans", key)
  features = at_least_float32(features)
  kept = np.ones(len(features), np.float32) if weights is None else jnp.asarray(weights)
  check_arguments(
    "equal_size_kmeans",
    features,
    init,
    kept,
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    max_iterations=max_iterations,
    hard_iterations=hard_iterations,
    chunk_size=chunk_size,
  )
  if axis_name is None and not errors.is_traced(kept, min_size, max_size):
    total = int((np.asarray(kept) > 0).sum())
    require_sizes("equal_size_kmeans", num_clusters, min_size, max_size, total)
  return _equal_size_kmeans(
    features,
    (kept > 0).astype(features.dtype),
    key,
    init,
    (min_size, max_size),
    (epsilon_start, epsilon, tolerance),
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    max_iterations=max_iterations,
    hard_iterations=min(hard_iterations, max_iterations),
    axis_name=axis_name,
    chunk_size=chunk_size,
  )


@functools.partial(
  jax.jit,
  static_argnames=(
    "num_clusters",
    "num_restarts",
    "max_iterations",
    "hard_iterations",
    "axis_name",
    "chunk_size",
  ),
)
def _equal_size_kmeans(
  features,
  weights,
  key,
  init,
  sizes,
  levels,
  *,
  num_clusters,
  num_restarts,
  max_iterations,
  hard_iterations,
  axis_name,
  chunk_size,
):
  """The part that is compiled, also for callers outside `jit`."""
  dtype = features.dtype
  total = sharding.psum(jnp.sum(weights > 0, dtype=jnp.int32), axis_name)
  if sizes == (None, None):
    # The plan's columns are equal even where K does not divide n: the potentials stay free of a
    # bound that one row more or less would make act.
    low, high = total // num_clusters, -(-total // num_clusters)
    shares = 1 / num_clusters, 1 / num_clusters
  else:
    low, high = 0 if sizes[0] is None else sizes[0], total if sizes[1] is None else sizes[1]
    shares = low / total, high / total
  low, high = (jnp.full(num_clusters, bound, jnp.int32) for bound in (low, high))
  columns = sinkhorn.Columns(*(jnp.full(num_clusters, share, dtype) for share in shares))

  rows = standardise(features, weights, chunk_size, axis_name)
  return best_clustering(
    rows,
    lambda rows, centroids: _cluster(
      rows,
      centroids,
      (low, high),
      columns,
      *levels,
      max_iterations=max_iterations,
      hard_iterations=hard_iterations,
    ),
    key,
    init,
    num_clusters=num_clusters,
    num_restarts=num_restarts,
    tolerance=levels[2],
  )
