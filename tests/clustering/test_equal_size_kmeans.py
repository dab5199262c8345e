"""Equal-size k-means against k-means-constrained, on any number of devices, and at its edges."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from k_means_constrained import KMeansConstrained
from sklearn.datasets import load_digits

from udh_jax.clustering.equal_size_kmeans import Clustering, equal_size_kmeans
from udh_jax.errors import InputError

KEY = jax.random.key(0)


@functools.partial(jax.jit, static_argnums=1, static_argnames=("num_restarts", "chunk_size"))
def cluster(features, num_clusters, key=KEY, **options):
  return equal_size_kmeans(features, num_clusters, key=key, **options)


def mixture(rng, size, dim, components=8):
  """Overlapping Gaussians of unequal weight."""
  means = rng.normal(size=(components, dim)) * 1.5
  component = rng.choice(components, size, p=rng.dirichlet(np.full(components, 2.0)))
  return (means[component] + rng.normal(size=(size, dim))).astype(np.float32)


def inertia_of(features, labels):
  features = features.astype(np.float64)
  return sum(
    np.square(features[labels == k] - features[labels == k].mean(axis=0)).sum()
    for k in np.unique(labels)
  )


def constrained(features, init, low, high):
  count = len(init)
  model = KMeansConstrained(count, size_min=low, size_max=high, init=init, n_init=1, max_iter=30)
  return model.fit(features).inertia_


def check_consistent(features, num_clusters, out):
  """Labels, sizes, centroids and inertia say the same."""
  labels = np.asarray(out.labels)
  assert labels.dtype == np.int32 and out.sizes.dtype == np.int32
  np.testing.assert_array_equal(np.bincount(labels, minlength=num_clusters), out.sizes)
  means = np.stack([features[labels == k].mean(axis=0) for k in range(num_clusters)])
  scale = np.abs(features).max() + 1e-9
  np.testing.assert_allclose(out.centroids, means, atol=1e-5 * scale)
  np.testing.assert_allclose(out.inertia, inertia_of(features, labels), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("size", "dim", "count"), [(1001, 16, 7), (600, 2, 20), (97, 3, 1), (12, 4, 12)]
)
def test_sizes_differ_by_at_most_one_and_all_fields_agree(rng, size, dim, count):
  features = mixture(rng, size, dim)
  out = cluster(features, count)
  check_consistent(features, count, out)
  assert out.sizes.sum() == size
  assert out.sizes.min() >= size // count and out.sizes.max() <= -(-size // count)


@pytest.mark.parametrize(
  ("size", "dim", "count"), [(1001, 16, 7), pytest.param(1500, 32, 25, marks=pytest.mark.slow)]
)
def test_inertia_equals_that_of_k_means_constrained(size, dim, count):
  ratios = []
  for seed in range(4):
    rng = np.random.default_rng(seed)
    features = mixture(rng, size, dim)
    init = features[rng.choice(size, count, replace=False)]
    out = cluster(features, count, init=init)
    ratios.append(
      float(out.inertia) / constrained(features, init, size // count, -(-size // count))
    )
  # Either may end in the better local optimum of a single start; on the whole they are equal.
  assert np.mean(ratios) <= 1.002 and max(ratios) <= 1.03, ratios


def test_real_digits_with_restarts_beat_one_run_of_k_means_constrained():
  features = load_digits().data.astype(np.float32)
  out = cluster(features, 10, num_restarts=4)
  init = features[np.random.default_rng(0).choice(len(features), 10, replace=False)]
  assert float(out.inertia) <= 1.002 * constrained(features, init, 179, 180)


@pytest.mark.parametrize("bounds", [(20, 200), (None, 80), (50, 51)])
def test_sizes_stay_between_bounds_and_inertia_is_as_good(rng, bounds):
  features = mixture(rng, 500, 6)
  low, high = bounds
  init = features[rng.choice(500, 10, replace=False)]
  out = cluster(features, 10, init=init, min_size=low, max_size=high)
  assert out.sizes.min() >= (low or 0) and out.sizes.max() <= (high or 500)
  expected = constrained(features, init, low or 0, high or 500)
  assert float(out.inertia) <= 1.03 * expected


def test_bounds_that_never_act_leave_plain_k_means(rng):
  features = mixture(rng, 400, 4)
  init = features[:6]
  out = cluster(features, 6, init=init, min_size=0, max_size=400)
  assert out.converged
  distances = np.square(features[:, None] - np.asarray(out.centroids)).sum(axis=2)
  np.testing.assert_array_equal(out.labels, distances.argmin(axis=1))


def test_separate_equal_blobs_are_found(rng):
  centres = rng.normal(size=(9, 5)) * 30
  truth = np.repeat(np.arange(9), 31)
  features = (centres[truth] + rng.normal(size=(279, 5))).astype(np.float32)
  out = cluster(features, 9, num_restarts=4)
  assert len(set(zip(truth.tolist(), np.asarray(out.labels).tolist(), strict=True))) == 9
  assert out.converged


def test_restarts_return_the_best_run(rng):
  features = mixture(rng, 300, 3)
  keys = jax.random.split(KEY, 3)
  singles = [float(cluster(features, 12, key=key).inertia) for key in keys]
  np.testing.assert_allclose(cluster(features, 12, num_restarts=3).inertia, min(singles), rtol=2e-4)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_does_not_matter(rng, scale):
  features = mixture(rng, 300, 4)
  plain, scaled = cluster(features, 5), cluster(features * np.float32(scale), 5)
  np.testing.assert_array_equal(plain.labels, scaled.labels)
  np.testing.assert_allclose(scaled.inertia, plain.inertia * scale**2, rtol=1e-4)


def test_a_shared_offset_does_not_matter(rng):
  features = np.round(mixture(rng, 300, 4) * 64) / 64  # Exact after the shift, too.
  plain, moved = cluster(features, 5), cluster(features + np.float32(10000), 5)
  np.testing.assert_array_equal(plain.labels, moved.labels)
  np.testing.assert_allclose(moved.inertia, plain.inertia, rtol=1e-5)
  np.testing.assert_allclose(moved.centroids, plain.centroids + 10000, rtol=1e-6)


def test_equal_rows_are_shared_out():
  out = cluster(np.full((50, 3), 2.5, np.float32), 4)
  assert sorted(out.sizes.tolist()) == [12, 12, 13, 13]
  np.testing.assert_allclose(out.centroids, 2.5)
  assert out.inertia == 0


def test_many_duplicates_are_shared_out(rng):
  features = np.repeat(mixture(rng, 5, 3), [1, 2, 3, 44, 50], axis=0)
  out = cluster(features, 10)
  assert (np.asarray(out.sizes) == 10).all()
  assert np.isfinite(out.centroids).all()


@pytest.mark.slow
def test_chunks_do_not_matter(rng):
  features = load_digits().data.astype(np.float32)[:701]
  whole = cluster(features, 10, chunk_size=None)
  chunked = cluster(features, 10, chunk_size=100)  # the last one holds a single row
  np.testing.assert_array_equal(whole.labels, chunked.labels)
  np.testing.assert_allclose(whole.inertia, chunked.inertia, rtol=1e-5)


def test_masked_rows_count_nowhere(rng):
  features = mixture(rng, 203, 4)
  padded = np.insert(features, 50, np.full((9, 1), np.nan), axis=0)
  weights = np.insert(np.ones(203), 50, np.zeros(9))
  init = features[:6]
  plain = cluster(features, 6, init=init)
  out = cluster(padded, 6, init=init, weights=weights)
  assert (out.labels[50:59] == -1).all()
  np.testing.assert_array_equal(np.delete(out.labels, np.s_[50:59]), plain.labels)
  np.testing.assert_array_equal(out.sizes, plain.sizes)
  np.testing.assert_allclose(out.inertia, plain.inertia, rtol=1e-5)


@pytest.mark.slow
def test_jit_shard_map_and_pmap_agree(mesh):
  options = {"num_restarts": 2, "chunk_size": 50}
  features = load_digits().data.astype(np.float32)[:1501]
  padded = np.concatenate([features, np.full((3, 64), np.inf, np.float32)])
  weights = np.r_[np.ones(1501), np.zeros(3)].astype(np.float32)

  def run(features, weights, key):
    return equal_size_kmeans(features, 10, key=key, weights=weights, axis_name="data", **options)

  data, same = PartitionSpec("data"), PartitionSpec()
  specs = Clustering(data, same, same, same, same, same)
  sharded = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=(data, data, same), out_specs=specs))(
    padded, weights, KEY
  )
  single = cluster(features, 10, **options)
  np.testing.assert_array_equal(sharded.labels[:1501], single.labels)
  assert (sharded.labels[1501:] == -1).all()
  np.testing.assert_array_equal(sharded.sizes, single.sizes)
  np.testing.assert_allclose(sharded.inertia, single.inertia, rtol=1e-5)
  np.testing.assert_allclose(sharded.centroids, single.centroids, atol=1e-3)
  mapped = jax.pmap(run, axis_name="data", in_axes=(0, 0, None))(
    padded.reshape(8, 188, 64), weights.reshape(8, 188), KEY
  )
  np.testing.assert_array_equal(np.ravel(mapped.labels)[:1501], single.labels)


@pytest.mark.slow
def test_64_bit_mode_and_numpy_integers_give_the_same_clusters(rng):
  centres = 5 * np.eye(5, 4)
  features = (centres[np.arange(60) % 5] + 0.1 * rng.normal(size=(60, 4))).astype(np.float32)
  plain = cluster(features, 5, min_size=3, max_size=20)
  with jax.enable_x64(True):
    wide = cluster(features, np.int64(5), min_size=np.int64(3), max_size=np.int32(20))
    double = cluster(features.astype(np.float64), 5, min_size=3, max_size=20)
  for name, value in plain._asdict().items():
    assert getattr(wide, name).dtype == value.dtype, name
  assert double.centroids.dtype == np.float64 and double.labels.dtype == np.int32
  for other in (wide, double):
    # Draws differ in 64-bit mode, so that clusters may have other numbers.
    together = np.asarray(other.labels)[:, None] == np.asarray(other.labels)
    np.testing.assert_array_equal(together, plain.labels[:, None] == plain.labels)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"num_clusters": 0}, "num_clusters is 0"),
    ({"num_clusters": 21}, "20 rows cannot fill 21 clusters"),
    ({"num_clusters": 2.5}, "num_clusters is 2.5, expected a whole number"),
    ({"max_size": 5.5}, "max_size is 5.5, expected a whole number"),
    ({"chunk_size": 0}, "chunk_size is 0"),
    ({"features": np.ones(5)}, r"shape \(5,\)"),
    ({"features": np.ones((0, 3))}, r"shape \(0, 3\), expected \[n, d\] with n and d above 0"),
    ({"features": np.ones((20, 0))}, r"shape \(20, 0\)"),
    ({"features": np.full((20, 3), np.nan)}, "20 of 20 rows"),
    ({"init": np.ones((4, 2))}, r"init has shape \(4, 2\), expected .* \(4, 3\)"),
    ({"init": np.ones((4, 3)), "num_restarts": 2}, "num_restarts has to be 1"),
    ({"weights": np.ones(19)}, r"weights have shape \(19,\)"),
    ({"weights": np.full(20, 0.5)}, "other values than 1"),
    ({"weights": np.r_[np.ones(3), np.zeros(17)]}, "3 rows cannot fill 4"),
    ({"min_size": 6}, "cannot hold 20 rows"),
    ({"max_size": 4}, "cannot hold 20 rows"),
    ({"min_size": 6, "max_size": 5}, "sizes from 6 to 5"),
    ({"max_iterations": 0}, "max_iterations is 0"),
    ({"hard_iterations": 0}, "hard_iterations is 0"),
    ({"num_restarts": 0}, "num_restarts is 0"),
    ({"epsilon": 0.0}, "epsilon is 0.0, expected more than 0"),
    ({"epsilon_start": np.nan}, "epsilon_start is nan"),
    ({"tolerance": -1.0}, "tolerance is -1.0, expected 0 or more"),
  ],
)
def test_bad_input_is_one_clear_line(rng, options, words):
  options = {"features": rng.random((20, 3)), "num_clusters": 4, "key": KEY, **options}
  with pytest.raises(InputError, match=words) as caught:
    equal_size_kmeans(options.pop("features"), options.pop("num_clusters"), **options)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("most", [2**31 - 1, 3_000_000_000])
def test_an_upper_bound_that_no_cluster_can_reach_is_none(rng, most):
  features = rng.normal(size=(12, 3))[np.repeat([0, 4, 9], (60, 30, 10))]
  options = {"key": KEY, "min_size": 9, "max_iterations": 12}
  found = equal_size_kmeans(features, 8, max_size=most, **options)
  wanted = equal_size_kmeans(features, 8, max_size=100, **options)
  np.testing.assert_array_equal(found.sizes, wanted.sizes)
  assert found.sizes.min() == 9
