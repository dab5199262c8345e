"""Balanced codes against a plain sort, one bit at a time."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from udh_jax.coding.balance import half_codes
from udh_jax.errors import InputError

DATA = PartitionSpec("data")


def sorted_codes(outputs, weights):
  codes = -np.ones_like(outputs)
  rows = np.flatnonzero(weights)
  for bit, column in enumerate(outputs.T):
    ranked = sorted(rows, key=lambda row: (-column[row], row))
    codes[ranked[: len(rows) // 2], bit] = 1
  return codes


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 16])
def test_the_half_with_the_larger_outputs_is_one(rng, rows):
  outputs = rng.integers(-3, 4, (rows, 5)).astype(np.float32)  # many are equal
  found = half_codes(outputs)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, sorted_codes(outputs, np.ones(rows)))


def test_rows_without_weight_take_no_place(rng):
  outputs, weights = rng.normal(size=(9, 3)), np.array([1, 0, 2, 1, 0, 1, 1, 0, 0.5])
  outputs[weights == 0] = 1e9
  found = np.asarray(half_codes(outputs, weights=weights))
  np.testing.assert_array_equal(found, sorted_codes(outputs, weights))
  np.testing.assert_array_equal((found == 1).sum(axis=0), 3)


def test_no_balanced_code_is_nearer(rng):
  outputs = rng.normal(size=(6, 1))
  best = min(
    itertools.combinations(range(6), 3),
    key=lambda ones: ((outputs[:, 0] - np.where(np.isin(range(6), ones), 1, -1)) ** 2).sum(),
  )
  np.testing.assert_array_equal(np.flatnonzero(half_codes(outputs)[:, 0] > 0), best)


def test_halves_are_those_of_the_batch_of_all_devices(mesh, rng):
  outputs = rng.integers(-3, 4, (24, 4)).astype(np.float32)
  weights = (np.arange(24) < 19).astype(np.float32)
  run = jax.shard_map(
    lambda u, w: half_codes(u, weights=w, axis_name="data"),
    mesh=mesh,
    in_specs=(DATA, DATA),
    out_specs=DATA,
  )
  np.testing.assert_array_equal(jax.jit(run)(outputs, weights), sorted_codes(outputs, weights))
  np.testing.assert_array_equal(jax.jit(half_codes)(outputs), sorted_codes(outputs, np.ones(24)))


def test_there_is_no_gradient(rng):
  outputs = jnp.asarray(rng.normal(size=(4, 2)))
  np.testing.assert_array_equal(jax.grad(lambda u: (half_codes(u) * u).sum())(outputs) != 0, True)
  np.testing.assert_array_equal(jax.grad(lambda u: half_codes(u).sum())(outputs), 0)


def test_shapes_that_are_wrong_are_refused():
  with pytest.raises(InputError, match=r"outputs have shape \(3,\), expected \[m, c\]"):
    half_codes(np.ones(3))
  with pytest.raises(InputError, match=r"weights have shape \(2,\), expected \[3\]"):
    half_codes(np.ones((3, 2)), weights=np.ones(2))
