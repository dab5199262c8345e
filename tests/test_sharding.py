"""Rows over devices, and reductions that are the identity without them."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from udh_jax.sharding import mean_of_rows, pmax, pmin, psum, row_indices, split_rows, varying

DATA = PartitionSpec("data")


@pytest.mark.parametrize("rows", [0, 1, 8, 13])
def test_rows_are_laid_out_in_order_and_filled_up(mesh, rows):
  array = np.arange(2 * rows, dtype=np.int16).reshape(rows, 2)
  placed = split_rows(mesh, array, fill=-1)
  assert placed.shape == (max(8, -(-rows // 8) * 8), 2) and placed.dtype == array.dtype
  np.testing.assert_array_equal(placed[:rows], array)
  assert (np.asarray(placed[rows:]) == -1).all()
  assert len(placed.sharding.device_set) == 8


def test_reductions_are_over_all_rows(mesh):
  def function(x):
    local = x.sum()
    return psum(local, "data"), pmax(local, "data"), pmin(local, "data"), row_indices(2, "data")

  specs = (PartitionSpec(), PartitionSpec(), PartitionSpec(), DATA)
  run = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=DATA, out_specs=specs))
  total, most, least, indices = run(np.arange(16))
  assert (total, most, least) == (120, 29, 1)
  np.testing.assert_array_equal(indices, np.arange(16))


def test_the_mean_is_over_the_weighted_rows_of_all_shards(mesh, rng):
  rows = rng.normal(size=(24, 5)).astype(np.float32)
  weights = rng.integers(0, 3, 24).astype(np.float32)
  weights[:6] = 0  # the first two shards have none
  expected = np.average(rows.astype(float), axis=0, weights=weights)

  def mean(rows, weights):
    return mean_of_rows(rows, weights, "data")

  sharded = jax.shard_map(mean, mesh=mesh, in_specs=DATA, out_specs=PartitionSpec())
  mapped = jax.pmap(mean, axis_name="data")
  for found in (
    mean_of_rows(rows, weights, None),
    jax.jit(sharded)(rows, weights),
    [leaf[5] for leaf in mapped(rows.reshape(8, 3, 5), weights.reshape(8, 3))],
  ):
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-6)
    assert found[1] == weights.sum()


def test_without_an_axis_nothing_is_done():
  tree = {"a": np.arange(3)}
  for function in (psum, pmax, pmin, varying):
    assert function(tree, None) is tree
  np.testing.assert_array_equal(row_indices(3, None), [0, 1, 2])


def test_a_carry_may_start_alike_and_end_apart(mesh):
  def function(x):
    start = varying(np.int32(0), "data")
    return jax.lax.fori_loop(0, 3, lambda _, carry: carry + x[0], start)[None]

  run = jax.jit(jax.shard_map(function, mesh=mesh, in_specs=DATA, out_specs=DATA))
  np.testing.assert_array_equal(run(np.arange(8, dtype=np.int32)), 3 * np.arange(8))
