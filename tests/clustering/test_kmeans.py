"""k-means against scikit-learn's, from the same start."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from udh_jax.clustering.kmeans import kmeans, own_distances
from udh_jax.clustering.members import Clustering
from udh_jax.errors import InputError

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def digits():
  return load_digits().data.astype(np.float32)


def oracle(features, init):
  model = KMeans(len(init), init=init, n_init=1, max_iter=300, tol=0)
  return model.fit(features.astype(np.float64))


@pytest.mark.parametrize("chunk_size", [None, 500])
def test_it_ends_where_scikit_learn_ends_from_the_same_start(digits, rng, chunk_size):
  init = digits[rng.choice(len(digits), 10, replace=False)]
  found = kmeans(digits, 10, key=KEY, init=init, max_iterations=300, chunk_size=chunk_size)
  expected = oracle(digits, init)
  assert (np.asarray(found.labels) == expected.labels_).mean() > 0.999
  np.testing.assert_allclose(found.centroids, expected.cluster_centers_, atol=0.05)
  np.testing.assert_allclose(found.inertia, expected.inertia_, rtol=1e-5)
  assert found.converged and found.iterations < 300


def test_the_result_is_of_the_rows_themselves(digits):
  found = kmeans(digits + 1000, 10, key=KEY)  # an offset costs no precision
  labels = np.asarray(found.labels)
  for cluster in range(10):
    members = digits[labels == cluster] + 1000
    assert len(members) == found.sizes[cluster]
    np.testing.assert_allclose(found.centroids[cluster], members.mean(axis=0), rtol=1e-5)
  distances = np.linalg.norm(digits + 1000 - np.asarray(found.centroids)[labels], axis=1)
  np.testing.assert_allclose(found.inertia, (distances**2).sum(), rtol=1e-4)
  np.testing.assert_allclose(
    own_distances(jnp.asarray(digits + 1000), found.labels, found.centroids, chunk_size=300),
    distances,
    rtol=1e-3,
  )


def test_restarts_keep_the_lowest_inertia(digits):
  keys = jax.random.split(KEY, 6)
  single = [float(kmeans(digits, 10, key=key).inertia) for key in keys]
  best = kmeans(digits, 10, key=KEY, num_restarts=6)
  np.testing.assert_allclose(best.inertia, min(single), rtol=1e-4)
  assert min(single) < max(single)


def test_shards_and_masked_rows_change_nothing(mesh, digits, rng):
  # Noise, because whole numbers have exact ties, which rounding breaks one way or the other.
  features = digits[rng.choice(len(digits), 800, replace=False)]
  features = features + rng.normal(size=features.shape).astype(np.float32)
  weights = np.r_[np.ones(750), np.zeros(50)].astype(np.float32)
  init = features[:10]
  spoilt = features.copy()
  spoilt[750:] = np.nan
  plain = kmeans(features[:750], 10, key=KEY, init=init)
  function = functools.partial(kmeans, num_clusters=10, axis_name="data", chunk_size=64)
  sharded = jax.jit(
    jax.shard_map(
      lambda x, w, init: (
        found := function(x, weights=w, key=KEY, init=init),
        own_distances(x, found.labels, found.centroids, chunk_size=64, axis_name="data"),
      ),
      mesh=mesh,
      in_specs=(P("data"), P("data"), P()),
      out_specs=(Clustering(P("data"), P(), P(), P(), P(), P()), P("data")),
    )
  )
  found, distances = sharded(spoilt, weights, init)
  np.testing.assert_array_equal(found.labels[:750], plain.labels)
  np.testing.assert_array_equal(found.labels[750:], -1)
  np.testing.assert_allclose(found.centroids, plain.centroids, atol=1e-3)
  assert int(found.sizes.sum()) == 750
  expected = np.linalg.norm(features[:750] - np.asarray(plain.centroids)[plain.labels], axis=1)
  np.testing.assert_allclose(distances[:750], expected, rtol=1e-3)
  np.testing.assert_array_equal(distances[750:], 0)


def test_an_empty_cluster_keeps_its_centroid():
  features = np.array([[0.0], [1.0], [10.0], [11.0]], np.float32)
  init = np.array([[0.5], [10.5], [1000.0]], np.float32)
  found = kmeans(features, 3, key=KEY, init=init)
  np.testing.assert_array_equal(found.sizes, [2, 2, 0])
  np.testing.assert_allclose(found.centroids, init, rtol=1e-5)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_clusters": 5}, "4 rows cannot fill 5 clusters"),
    ({"num_clusters": 0}, "num_clusters is 0"),
    ({"num_restarts": 0}, "num_restarts is 0"),
    ({"max_iterations": 0}, "max_iterations is 0"),
    ({"init": np.ones((2, 3))}, r"init has shape \(2, 3\)"),
    ({"init": np.ones((2, 2)), "num_restarts": 2}, "num_restarts has to be 1"),
    ({"weights": np.ones(3)}, r"weights have shape \(3,\)"),
    ({"features": np.full((4, 2), np.nan)}, "4 of 4 rows hold NaN"),
  ],
)
def test_bad_input_is_refused_in_one_line(rng, options, message):
  arguments = {"features": rng.normal(size=(4, 2)), "num_clusters": 2, "key": KEY} | options
  with pytest.raises(InputError, match=message) as error:
    kmeans(**arguments)
  assert "\n" not in str(error.value)


def test_distances_to_a_cluster_that_is_not_there_are_refused():
  with pytest.raises(InputError, match="own_distances: labels run from 0 to 2, expected 0 to 1"):
    own_distances(jnp.zeros((2, 3)), jnp.array([0, 2]), jnp.zeros((2, 3)))


def test_distances_of_other_shapes_are_refused():
  with pytest.raises(InputError, match=r"\(4, 2\), \(3,\) and \(2, 2\)"):
    own_distances(jnp.ones((4, 2)), jnp.zeros(3, int), jnp.ones((2, 2)))


def test_it_ends_after_as_many_updates_as_asked_for_and_says_so(digits):
  init = digits[:10]
  found = kmeans(digits, 10, key=KEY, init=init, max_iterations=2)
  centroids = init.astype(np.float64)
  for _ in range(2):
    distances = ((digits[:, None] - centroids) ** 2).sum(axis=2)
    labels = distances.argmin(axis=1)
    centroids = np.stack([digits[labels == k].mean(axis=0) for k in range(10)])
  assert found.iterations == 2 and not found.converged
  assert (np.asarray(found.labels) == labels).mean() > 0.999
  np.testing.assert_allclose(found.centroids, centroids, atol=0.05)


def test_shards_draw_the_same_start(mesh, digits, rng):
  features = digits[:800] + rng.normal(size=(800, 64)).astype(np.float32)
  weights = (np.arange(800) < 750).astype(np.float32)
  plain = kmeans(features, 10, key=KEY, weights=weights)
  function = functools.partial(kmeans, num_clusters=10, key=KEY, axis_name="data")
  sharded = jax.jit(
    jax.shard_map(
      lambda x, w: function(x, weights=w),
      mesh=mesh,
      in_specs=P("data"),
      out_specs=Clustering(P("data"), P(), P(), P(), P(), P()),
    )
  )(features, weights)
  np.testing.assert_array_equal(sharded.labels, plain.labels)
  np.testing.assert_allclose(sharded.centroids, plain.centroids, atol=1e-3)
