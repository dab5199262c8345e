"""Rounding against optimal assignment, and selection against sorting."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from scipy.optimize import linear_sum_assignment

from udh_jax.clustering import potentials
from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans
from udh_jax.clustering.members import clustering_specs
from udh_jax.clustering.potentials import solve_potentials
from udh_jax.clustering.rounding import round_to_sizes, select_lowest, target_sizes
from udh_jax.clustering.sinkhorn import Columns
from udh_jax.runtime import mesh as mesh_lib


@jax.jit
def labels_of(cost, low, high, potential):
  """Labels rounded from the potentials given, or from solved ones."""
  size, columns = cost.shape
  weights = jnp.ones(size, cost.dtype)
  bounds = jnp.full(columns, low, jnp.int32), jnp.full(columns, high, jnp.int32)

  def fold_costs(function, carry):
    return function(carry, None, cost, weights, 0)

  if potential is None:
    potential = solve_potentials(
      fold_costs,
      jnp.zeros(columns, cost.dtype),
      Columns(*((bound / size).astype(cost.dtype) for bound in bounds)),
      weights=weights,
      epsilon_start=0.3,
      epsilon=1e-3,
      tolerance=1e-2,
      max_passes=60,
      axis_name=None,
    )
  return round_to_sizes(fold_costs, potential.astype(cost.dtype), bounds, weights, None)


def rounded(cost, low, high, potential=None):
  return np.asarray(labels_of(cost, low, high, potential))


def best_cost(cost, size_of_column):
  copies = np.repeat(cost, size_of_column, axis=1)
  return copies[linear_sum_assignment(copies)].sum()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("size", "columns"), [(60, 6), (200, 10), (30, 15), (9, 9)])
def test_cost_is_that_of_an_optimal_assignment(size, columns, seed):
  cost = np.random.default_rng(seed).random((size, columns)).astype(np.float32)
  labels = rounded(cost, size // columns, size // columns)
  assert (np.bincount(labels, minlength=columns) == size // columns).all()
  found = cost[np.arange(size), labels].sum()
  assert found <= best_cost(cost, size // columns) * 1.0001


def test_chains_of_clusters_hand_rows_on(rng):
  # All rows lie at one end of a line of clusters: the optimum shifts rows through every cluster.
  place = np.sort(rng.random(120)) * 3
  cost = np.square(place[:, None] - np.arange(12)).astype(np.float32) / 10
  labels = rounded(cost, 10, 10)
  assert cost[np.arange(120), labels].sum() <= best_cost(cost, 10) * 1.0001


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_as_many_rows_enter_the_jacobian_on_any_number_of_shards(shards, monkeypatch):
  monkeypatch.setattr(potentials, "JACOBIAN_ROWS", 10)
  strides = []

  def run(weights):
    strides.append(potentials._stride(weights, "data"))
    return weights

  mesh = mesh_lib.make_mesh(jax.devices()[:shards])
  data = PartitionSpec("data")
  jax.eval_shape(jax.shard_map(run, mesh=mesh, in_specs=data, out_specs=data), jnp.ones(40))
  assert set(strides) == {4} == {potentials._stride(jnp.ones(40), None)}


@pytest.mark.parametrize("potential", ["zero", "wild"])
def test_sizes_are_exact_from_any_potentials(rng, potential):
  cost = rng.random((101, 7)).astype(np.float32)
  start = jnp.zeros(7) if potential == "zero" else jnp.asarray(rng.normal(size=7) * 9, jnp.float32)
  sizes = np.bincount(rounded(cost, 14, 15, start), minlength=7)
  assert sizes.min() == 14 and sizes.max() == 15
  sizes = np.bincount(rounded(cost, 5, 30, start), minlength=7)
  assert sizes.min() >= 5 and sizes.max() <= 30 and sizes.sum() == 101


def test_equal_rows_still_get_exact_sizes():
  sizes = np.bincount(rounded(np.ones((50, 4), np.float32), 12, 13), minlength=4)
  assert sorted(sizes) == [12, 12, 13, 13]


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_select_lowest_equals_a_stable_sort(rng, size):
  # Few distinct values, so that ties decide; both signs, zeros of both signs.
  values = rng.integers(-3, 4, size).astype(np.float32) * np.float32(1e-3)
  values[rng.random(size) < 0.1] = -0.0
  groups = rng.integers(0, 5, size).astype(np.int32)
  eligible = rng.random(size) < 0.8
  quota = np.array([0, 1, 7, 50, 10**6], np.int32)
  expected = np.zeros(size, bool)
  for group in range(5):
    rows = np.flatnonzero(eligible & (groups == group))
    expected[rows[np.argsort(values[rows], kind="stable")[: quota[group]]]] = True
  for run in (select_lowest, jax.jit(select_lowest)):
    np.testing.assert_array_equal(run(values, groups, eligible, jnp.asarray(quota)), expected)


@pytest.mark.slow
def test_select_lowest_is_the_same_on_shards(rng, mesh):
  values = rng.integers(0, 9, 240).astype(np.float32)
  groups = rng.integers(0, 3, 240).astype(np.int32)
  eligible = rng.random(240) < 0.9
  quota = jnp.array([3, 40, 77], jnp.int32)
  data = PartitionSpec("data")
  sharded = jax.shard_map(
    lambda v, g, e: select_lowest(v, g, e, quota, axis_name="data"),
    mesh=mesh,
    in_specs=(data, data, data),
    out_specs=data,
  )(values, groups, eligible)
  np.testing.assert_array_equal(sharded, select_lowest(values, groups, eligible, quota))


def test_labels_are_the_same_on_shards_and_in_chunks(mesh, rng):
  features = rng.normal(size=(96, 3)).astype(np.float32)
  options = {"key": jax.random.key(0), "init": features[:4], "max_iterations": 3}
  options |= {"hard_iterations": 3}
  plain = equal_size_kmeans(features, 4, **options)
  data, whole = PartitionSpec("data"), PartitionSpec()
  run = functools.partial(
    equal_size_kmeans, num_clusters=4, axis_name="data", chunk_size=5, **options
  )
  sharded = jax.jit(
    jax.shard_map(run, mesh=mesh, in_specs=data, out_specs=clustering_specs(data, whole))
  )(features)
  np.testing.assert_array_equal(sharded.labels, plain.labels)
  assert plain.iterations == 3 and (np.asarray(plain.sizes) == 24).all()


def sizes_by_hand(counts, potential, low, high):
  """What is missing goes to the lowest potentials, what is too much comes off the highest."""
  acting = np.where(potential > 0, low, np.where(potential < 0, high, np.clip(counts, low, high)))
  sizes = np.where(high - low <= 1, low, acting).astype(object)  # of any size
  missing = counts.sum() - sizes.sum()
  for column in np.argsort(potential, kind="stable") if missing > 0 else ():
    given = min(high[column] - sizes[column], missing)
    sizes[column], missing = sizes[column] + given, missing - given
  for column in np.argsort(-potential, kind="stable") if missing < 0 else ():
    taken = min(sizes[column] - low[column], -missing)
    sizes[column], missing = sizes[column] - taken, missing + taken
  return sizes.astype(np.int64)


@pytest.mark.parametrize("most", [1.5, 4, 1e9])
@pytest.mark.parametrize("columns", [1, 2, 7, 40])
def test_target_sizes_are_those_by_hand_whatever_the_upper_bound(rng, columns, most):
  for _ in range(10):
    counts = rng.multinomial(300, rng.dirichlet(np.full(columns, 0.3)))
    potential = np.round(rng.normal(size=columns), 1) * (rng.random(columns) < 0.8)
    low = np.full(columns, rng.integers(0, 300 // columns + 1))
    high = np.full(columns, min(int(most * np.ceil(300 / columns)), 2**31 - 1))
    args = (np.asarray(x, np.int32) for x in (counts, low, high))
    counts32, low32, high32 = args
    found = target_sizes(counts32, jnp.asarray(potential, jnp.float32), low32, high32)
    wanted = sizes_by_hand(counts, potential.astype(np.float32), low, high)
    np.testing.assert_array_equal(found, wanted)


def test_rooms_that_int32_cannot_add_up_are_no_more_than_there_is():
  counts = np.zeros(2000, np.int32)
  counts[0] = 1_281_167
  low, high = np.full(2000, 100, np.int32), np.full(2000, 1_281_167, np.int32)
  found = np.asarray(target_sizes(counts, jnp.zeros(2000), low, high), np.int64)
  assert found.sum() == 1_281_167 and found.min() == 100
