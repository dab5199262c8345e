"""SSDH's structure of distances against plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from udh_jax.errors import InputError
from udh_jax.similarity import structure
from udh_jax.similarity.structure import HalfGaussians, fit_half_gaussians, structure_signs


def plain_half_gaussians(features):
  """All distances at once, mirrored, as scipy's norm.fit would fit each side."""
  unit = features.astype(np.float64)
  unit /= np.linalg.norm(unit, axis=1, keepdims=True)
  distances = (1 - unit @ unit.T)[~np.eye(len(unit), dtype=bool)]
  counts, edges = np.histogram(distances, bins=200, range=(0, 2))
  mode = (edges[counts.argmax()] + edges[counts.argmax() + 1]) / 2
  sides = distances[distances <= mode], distances[distances > mode]
  return mode, *(np.concatenate([side, 2 * mode - side]).std() for side in sides)


@pytest.fixture
def clustered(rng):
  centres = rng.normal(size=(4, 8)) * 2
  return (centres[rng.integers(0, 4, 96)] + rng.normal(size=(96, 8))).astype(np.float32)


@pytest.mark.parametrize("chunk_size", [None, 20])
def test_half_gaussians_are_those_of_the_mirrored_distances(clustered, chunk_size):
  found = fit_half_gaussians(clustered, chunk_size=chunk_size)
  np.testing.assert_allclose(found, plain_half_gaussians(clustered), rtol=1e-4)


def test_shards_and_masked_rows_give_the_same_half_gaussians(mesh, clustered):
  weights = np.r_[np.ones(90), np.zeros(6)].astype(np.float32)
  spoilt = clustered.copy()
  spoilt[90:] = 7
  expected = plain_half_gaussians(clustered[:90])
  np.testing.assert_allclose(fit_half_gaussians(spoilt, weights=weights), expected, rtol=1e-4)
  sharded = jax.shard_map(
    lambda x, w: functools.partial(fit_half_gaussians, axis_name="data", chunk_size=5)(
      x, weights=w
    ),
    mesh=mesh,
    in_specs=(P("data"), P("data")),
    out_specs=P(),
  )
  np.testing.assert_allclose(jax.jit(sharded)(spoilt, weights), expected, rtol=1e-4)


def test_signs_say_what_lies_beyond_the_deviations(clustered):
  fitted = HalfGaussians(jnp.float32(0.9), jnp.float32(0.2), jnp.float32(0.1))
  signs = structure_signs(clustered, fitted, deviations=2.0)
  unit = clustered / np.linalg.norm(clustered, axis=1, keepdims=True)
  distances = 1 - unit @ unit.T
  expected = np.where(distances < 0.5, 1, np.where(distances > 1.1, -1, 0))
  np.testing.assert_array_equal(signs, expected)
  assert set(np.unique(expected)) == {-1, 0, 1}


def test_more_rows_than_can_be_paired_are_refused(monkeypatch):
  monkeypatch.setattr(structure, "MOST_ROWS", 9)
  fit_half_gaussians(np.eye(9))
  with pytest.raises(InputError, match="10 rows have more pairs than can be counted"):
    fit_half_gaussians(np.eye(10))
