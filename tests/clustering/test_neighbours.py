"""Neighbours and their graph against NumPy's sort and ARPACK."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

from udh_jax.clustering.kmeans import kmeans
from udh_jax.clustering.neighbours import NONE, nearest_neighbours, neighbour_embedding
from udh_jax.errors import InputError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def digits():
  """Features, which are centred, and the number that each shows."""
  data = load_digits()
  rows = data.data.astype(np.float32)
  return rows - rows.mean(axis=0), data.target


def cosines_of(rows):
  rows = rows.astype(np.float64)
  lengths = np.linalg.norm(rows, axis=1, keepdims=True)
  unit = rows / np.where(lengths > 0, lengths, 1)
  return unit @ unit.T


def assert_nearest(found, rows, count, known=None):
  """Each row has its nearest, in order; rows as near as the last may stand for one another."""
  cosines = cosines_of(rows)
  np.fill_diagonal(cosines, -np.inf)
  known = np.ones(len(rows), bool) if known is None else known
  cosines[:, ~known] = -np.inf
  for row, places in enumerate(np.asarray(found)):
    expected = np.sort(cosines[row])[::-1][:count] if known[row] else []
    expected = [value for value in expected if value > -np.inf]
    kept = places[: len(expected)]
    assert (places[len(expected) :] == NONE).all()
    assert len(set(kept.tolist())) == len(kept) and row not in kept
    np.testing.assert_allclose(cosines[row, kept], expected, atol=1e-5)


def adjacency(neighbours):
  neighbours = np.asarray(neighbours)
  size = len(neighbours)
  rows, places = np.nonzero(neighbours >= 0)
  ones = np.ones(len(rows))
  graph = scipy.sparse.csr_matrix((ones, (rows, neighbours[rows, places])), shape=(size, size))
  return graph + graph.T


def leading_eigenvectors(neighbours, dims):
  graph = adjacency(neighbours)
  degrees = np.asarray(graph.sum(axis=1)).ravel()
  root = scipy.sparse.diags(np.where(degrees > 0, np.maximum(degrees, 1) ** -0.5, 0))
  scaled = root @ graph @ root
  if len(neighbours) > 1000:
    # Of a connected graph: ARPACK may miss copies of an eigenvalue.
    start = np.random.default_rng(0).standard_normal(len(neighbours))
    values, vectors = scipy.sparse.linalg.eigsh(scaled, k=dims, which="LA", v0=start)
  else:
    values, vectors = np.linalg.eigh(scaled.toarray())
  return vectors[:, np.argsort(-values)][:, :dims]


@pytest.mark.parametrize(("size", "count"), [(1, 3), (2, 3), (5, 3), (257, 7), (1797, 20)])
def test_neighbours_are_those_of_a_sort(digits, size, count):
  rows = digits[0][:size]
  assert_nearest(nearest_neighbours(rows, count), rows, count)


def test_blocks_leave_no_neighbour_out(rng, monkeypatch):
  monkeypatch.setattr("udh_jax.clustering.neighbours._QUERIES", 8)
  monkeypatch.setattr("udh_jax.clustering.neighbours._OTHERS", 13)
  rows = rng.standard_normal((101, 6)).astype(np.float32)
  jax.clear_caches()
  assert_nearest(nearest_neighbours(rows, 9), rows, 9)
  jax.clear_caches()


def test_masked_rows_have_no_neighbours_and_are_nobodys(rng):
  rows = rng.standard_normal((40, 5)).astype(np.float32)
  known = np.arange(40) % 3 > 0
  found = nearest_neighbours(rows, 6, weights=known.astype(np.float32))
  assert_nearest(found, rows, 6, known)
  only = nearest_neighbours(rows, 6, weights=(np.arange(40) == 7).astype(np.float32))
  assert (np.asarray(only) == NONE).all()


def test_all_rows_count_on_devices_too(rng, mesh):
  rows = rng.standard_normal((40, 5)).astype(np.float32)
  mapped = jax.shard_map(
    lambda own: nearest_neighbours(own, 6, axis_name="data"),
    mesh=mesh,
    in_specs=P("data"),
    out_specs=P("data"),
  )
  assert_nearest(mapped(rows), rows, 6)


@pytest.mark.parametrize("repeated", [8, 5])
def test_ties_go_by_index_on_any_number_of_devices(rng, mesh, repeated):
  rows = np.repeat(rng.standard_normal((40 // repeated, 4)).astype(np.float32), repeated, axis=0)
  rows = np.ascontiguousarray(rows[rng.permutation(40)])
  alike = (rows[:, None] == rows[None]).all(axis=2) & ~np.eye(40, dtype=bool)
  expected = [np.flatnonzero(own)[:3] for own in alike]
  mapped = jax.shard_map(
    lambda own: nearest_neighbours(own, 3, axis_name="data"),
    mesh=mesh,
    in_specs=P("data"),
    out_specs=P("data"),
  )
  np.testing.assert_array_equal(nearest_neighbours(rows, 3), expected)
  np.testing.assert_array_equal(mapped(rows), expected)


def test_duplicates_and_zeros_are_rows_as_others(rng):
  rows = np.repeat(rng.standard_normal((4, 3)).astype(np.float32), 5, axis=0)
  rows[-1] = 0
  assert_nearest(nearest_neighbours(rows, 4), rows, 4)


def test_the_embedding_spans_the_leading_eigenvectors(digits):
  neighbours = nearest_neighbours(digits[0], 10)
  found = np.asarray(neighbour_embedding(neighbours, 8, key=KEY))
  expected = leading_eigenvectors(neighbours, 8)
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-3)


def in_clusters(rng, size, dims, clusters):
  centres = 3 * rng.standard_normal((clusters, dims))
  return centres[np.arange(size) % clusters] + rng.standard_normal((size, dims))


@pytest.mark.parametrize(
  ("size", "dims", "clusters", "neighbours", "columns"),
  [
    (500, 64, 10, 20, 16),  # the first ten eigenvalues are far from the others
    (1000, 64, 10, 20, 16),
    (100, 64, 1, 20, 16),  # the first one alone is
    (60, 4, 1, 20, 16),  # and there are about as many rows as columns
    (4, 3, 1, 3, 4),  # complete: all others are -1/3
  ],
)
def test_no_leading_eigenvector_is_lost_beside_heavier_ones(
  rng, size, dims, clusters, neighbours, columns
):
  rows = in_clusters(rng, size, dims, clusters).astype(np.float32)
  neighbours = nearest_neighbours(rows - rows.mean(axis=0), neighbours)
  found = np.asarray(neighbour_embedding(neighbours, columns, key=KEY))
  expected = leading_eigenvectors(neighbours, columns)
  expected /= np.linalg.norm(expected, axis=1, keepdims=True)
  np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-3)


def test_clusters_in_the_embedding_are_nearer_to_classes(digits):
  rows, numbers = digits
  places = neighbour_embedding(nearest_neighbours(rows, 10), 10, key=KEY)

  def purity(features):
    labels = np.asarray(kmeans(features, 10, key=KEY, num_restarts=3).labels)
    return sum(np.bincount(numbers[labels == cluster]).max() for cluster in range(10)) / len(labels)

  assert purity(places) > purity(rows) + 0.05


def test_parts_that_nothing_joins_and_rows_without_neighbours(rng):
  centres = 20 * np.eye(3, 12, dtype=np.float32)
  rows = np.repeat(centres, 11, axis=0) + rng.standard_normal((33, 12)).astype(np.float32)
  weights = np.ones(33, np.float32)
  weights[5] = 0
  neighbours = nearest_neighbours(rows, 4, weights=weights)
  found = np.asarray(neighbour_embedding(neighbours, 3, key=KEY))
  assert (found[5] == 0).all()
  alike = found @ found.T
  same = np.arange(33)[:, None] // 11 == np.arange(33) // 11
  lone = np.arange(33) == 5
  same, known = same & ~lone & ~lone[:, None], ~lone & ~lone[:, None]
  np.testing.assert_allclose(alike[known], same[known], atol=1e-3)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_fewer_rows_than_dimensions_leave_the_others_zero(rng, size):
  neighbours = nearest_neighbours(rng.standard_normal((size, 4)).astype(np.float32), 5)
  found = np.asarray(neighbour_embedding(neighbours, 6, key=KEY))
  assert found.shape == (size, 6) and np.isfinite(found).all()
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), float(size > 1), atol=1e-5)


def test_jit_shard_map_and_pmap_agree(digits, mesh):
  rows = np.concatenate([digits[0][:603], np.full((5, 64), 7, np.float32)])  # 76 rows a device
  weights = (np.arange(608) < 603).astype(np.float32)

  def run(rows, weights, axis_name=None):
    found = nearest_neighbours(rows, 8, weights=weights, axis_name=axis_name)
    return found, neighbour_embedding(found, 6, key=KEY, axis_name=axis_name)

  neighbours, places = jax.jit(run)(rows, weights)
  shared = functools.partial(run, axis_name="data")
  sharded = jax.jit(jax.shard_map(shared, mesh=mesh, in_specs=P("data"), out_specs=P("data")))(
    rows, weights
  )
  mapped = jax.pmap(shared, axis_name="data")(rows.reshape(8, 76, 64), weights.reshape(8, 76))
  mapped = jax.tree.map(lambda part: np.asarray(part).reshape(608, -1), mapped)
  alike = np.asarray(places) @ np.asarray(places).T
  for other_neighbours, other_places in (sharded, mapped):
    np.testing.assert_array_equal(np.asarray(other_neighbours), neighbours)
    other = np.asarray(other_places)
    np.testing.assert_allclose(other @ other.T, alike, atol=5e-3)
  assert (np.asarray(neighbours)[603:] == NONE).all() and not np.asarray(places)[603:].any()


def test_bad_input_is_one_line():
  with pytest.raises(InputError, match=r"shape \(3,\), expected \[n, d\]"):
    nearest_neighbours(jnp.zeros(3), 2)
  with pytest.raises(InputError, match=r"shape \(3, 0\), expected \[n, d\] with d of 1"):
    nearest_neighbours(jnp.zeros((3, 0)), 2)
  with pytest.raises(InputError, match="neighbours run from 0 to 3, expected 0 to 2"):
    neighbour_embedding(jnp.array([[1], [3], [0]]), 1, key=KEY)
  with pytest.raises(InputError, match="num_neighbours is 0"):
    nearest_neighbours(jnp.zeros((3, 2)), 0)
  with pytest.raises(InputError, match=r"num_neighbours is 1.5, expected a whole number"):
    nearest_neighbours(jnp.zeros((3, 2)), 1.5)
  with pytest.raises(InputError, match="NaN or infinity"):
    nearest_neighbours(jnp.full((3, 2), jnp.nan), 1)
  with pytest.raises(InputError, match="num_dims is 0"):
    neighbour_embedding(jnp.zeros((3, 2), int), 0, key=KEY)
  with pytest.raises(InputError, match=r"shape \(3,\), expected integers \[n, k\]"):
    neighbour_embedding(jnp.zeros(3, int), 1, key=KEY)


@pytest.mark.parametrize("exponent", [-60, -30, 30, 60])
def test_rows_may_have_any_length(rng, exponent):
  rows = rng.standard_normal((40, 5)).astype(np.float32)
  np.testing.assert_array_equal(
    nearest_neighbours(np.ldexp(rows, exponent), 6), nearest_neighbours(rows, 6)
  )


def test_masked_rows_may_hold_anything(rng):
  rows = rng.standard_normal((40, 5)).astype(np.float32)
  weights = (np.arange(40) != 7).astype(np.float32)
  expected = nearest_neighbours(rows, 6, weights=weights)
  rows[7] = np.nan
  np.testing.assert_array_equal(nearest_neighbours(rows, 6, weights=weights), expected)
  with pytest.raises(InputError, match=r"weights have shape \(39,\), expected \[40\]"):
    nearest_neighbours(rows, 6, weights=weights[1:])
  with pytest.raises(InputError, match=r"neighbours are float32 of shape \(40, 6\)"):
    neighbour_embedding(np.asarray(expected, np.float32), 2, key=KEY)
