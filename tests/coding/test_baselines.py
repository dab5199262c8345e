"""Shallow hash functions, against plain numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from udh_jax.coding import encode, itq, lsh, pca_rotation
from udh_jax.errors import InputError

FITS = {"lsh": lsh, "pca_rotation": pca_rotation, "itq": itq}


@pytest.fixture
def features(rng):
  spread = np.diag(np.linspace(4, 0.5, 12)) @ np.linalg.qr(rng.normal(size=(12, 12)))[0]
  return (rng.normal(size=(203, 12)) @ spread + 30).astype(np.float32)


@pytest.fixture
def key():
  return jax.random.key(7)


def test_codes_are_signs_of_the_centred_projections(features, key):
  fitted = lsh(features, 20, key=key)
  expected = (features.astype(np.float64) - fitted.mean) @ np.asarray(fitted.projection, float)
  codes = encode(fitted, features)
  assert codes.dtype == jnp.int8
  np.testing.assert_array_equal(codes, np.where(expected >= 0, 1, -1))


def test_a_point_at_the_mean_has_all_bits_set(key):
  features = np.array([[-1.0, 2.0], [1.0, -2.0]])
  np.testing.assert_array_equal(encode(lsh(features, 5, key=key), np.zeros((1, 2))), 1)


def test_lsh_collides_in_proportion_to_the_angle(rng, key):
  pair = np.array([[1.0, 0.0], [np.cos(1.0), np.sin(1.0)]])
  centred = np.concatenate([pair, -pair])
  codes = np.asarray(encode(lsh(centred, 4000, key=key), pair), int)
  assert np.mean(codes[0] != codes[1]) == pytest.approx(1.0 / np.pi, abs=0.03)


def test_pca_spans_the_leading_directions_of_numpy(features, key):
  fitted = pca_rotation(features, 5, key=key)
  exact = features.astype(np.float64)
  np.testing.assert_allclose(fitted.mean, exact.mean(axis=0), rtol=1e-6)
  directions = np.linalg.svd(exact - exact.mean(axis=0), full_matrices=False)[2][:5]  # [5, d]
  projection = np.asarray(fitted.projection, float)
  np.testing.assert_allclose(projection.T @ projection, np.eye(5), atol=1e-5)
  np.testing.assert_allclose(projection @ projection.T, directions.T @ directions, atol=1e-4)


def test_pca_does_not_mind_features_far_from_the_origin(rng, key):
  features = rng.normal(size=(400, 6)) * [5, 4, 3, 2, 1, 0.5]
  near = pca_rotation(features, 3, key=key).projection
  far = pca_rotation(features + 1000, 3, key=key).projection
  np.testing.assert_allclose(far, near, atol=5e-3)


def plain_itq(features, directions, rotation, num_iterations):
  projected = (features - features.mean(axis=0)) @ directions
  for _ in range(num_iterations):
    codes = np.where(projected @ rotation >= 0, 1, -1)
    left, _, right = np.linalg.svd(codes.T @ projected)  # as in the paper: B^T V = S O S^T
    rotation = right.T @ left.T
  return directions @ rotation


@pytest.mark.parametrize("num_iterations", [0, 1, 10])
def test_itq_follows_numpy_from_the_same_start(features, key, num_iterations):
  exact = features.astype(np.float64)
  start = np.asarray(itq(features, 6, key=key, num_iterations=0).projection, float)
  vectors = np.linalg.eigh(np.cov(exact.T))[1][:, ::-1][:, :6]
  vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(6)])
  expected = plain_itq(exact, vectors, vectors.T @ start, num_iterations)
  result = itq(features, 6, key=key, num_iterations=num_iterations).projection
  np.testing.assert_allclose(result, expected, atol=2e-3)


def test_itq_starts_from_the_rotation_of_pca(features, key):
  np.testing.assert_allclose(
    itq(features, 6, key=key, num_iterations=0).projection,
    pca_rotation(features, 6, key=key).projection,
    atol=1e-6,
  )


def test_itq_objective_never_rises(features, key):
  def objective(num_iterations):
    fitted = itq(features, 8, key=key, num_iterations=num_iterations)
    turned = (features.astype(np.float64) - fitted.mean) @ np.asarray(fitted.projection, float)
    return np.sum((np.where(turned >= 0, 1, -1) - turned) ** 2)

  values = np.array([objective(t) for t in (0, 1, 2, 3, 5, 9, 20, 50)])
  assert (np.diff(values) <= 1e-5 * values[0]).all()
  assert values[-1] < values[0]


def test_itq_stays_orthonormal(features, key):
  projection = np.asarray(itq(features, 12, key=key).projection, float)
  np.testing.assert_allclose(projection.T @ projection, np.eye(12), atol=1e-4)


@pytest.mark.parametrize("name", FITS)
def test_masked_rows_do_not_count(features, key, name):
  weights = np.ones(len(features))
  weights[[0, 50, 202]] = 0
  spoilt = features.copy()
  spoilt[weights == 0] = [[1e4], [np.nan], [np.inf]]
  masked = FITS[name](spoilt, 4, key=key, weights=weights)
  kept = FITS[name](features[weights > 0], 4, key=key)
  np.testing.assert_allclose(masked.mean, kept.mean, rtol=1e-5)
  np.testing.assert_allclose(masked.projection, kept.projection, atol=1e-3)


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("exponent", [-64, 60])
def test_features_of_any_scale_have_the_same_codes(features, key, name, exponent):
  rows = features - 30
  fitted = FITS[name](rows, 8, key=key)
  scaled = np.ldexp(rows, exponent)
  of_scaled = FITS[name](scaled, 8, key=key)
  np.testing.assert_array_equal(encode(fitted, rows), encode(of_scaled, scaled))


@pytest.mark.parametrize("name", FITS)
def test_eight_devices_fit_the_same_function(features, key, mesh, name):
  padded = np.concatenate([features, np.full((5, 12), 99, np.float32)])  # 208 = 8 x 26
  weights = (np.arange(208) < 203).astype(np.float32)
  fit = functools.partial(FITS[name], num_bits=6, axis_name="data")
  expected = FITS[name](features, 6, key=key)

  def fit_rows(rows, weights, key):
    return fit(rows, key=key, weights=weights)

  sharded = jax.jit(
    jax.shard_map(fit_rows, mesh=mesh, in_specs=(P("data"), P("data"), P()), out_specs=P())
  )(padded, weights, key)
  mapped = jax.pmap(fit_rows, axis_name="data", in_axes=(0, 0, None), out_axes=None)(
    padded.reshape(8, 26, 12), weights.reshape(8, 26), key
  )
  for result in (sharded, mapped):
    np.testing.assert_allclose(result.mean, expected.mean, rtol=1e-5)
    np.testing.assert_allclose(result.projection, expected.projection, atol=1e-3)


def test_another_key_gives_another_function(features):
  first, second = (lsh(features, 8, key=jax.random.key(s)).projection for s in (0, 1))
  assert np.abs(first - second).max() > 0.1


def test_one_training_row_and_all_directions_work(key):
  assert itq(np.ones((1, 3)), 3, key=key).projection.shape == (3, 3)


@pytest.mark.parametrize("fit", [pca_rotation, itq])
def test_more_bits_than_directions_are_refused(features, key, fit):
  with pytest.raises(InputError, match=r"13 bits .* only 12 principal directions"):
    fit(features, 13, key=key)
  assert lsh(features, 13, key=key).projection.shape == (12, 13)


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize(
  ("features", "options", "message"),
  [
    (np.ones(5), {}, r"shape \(5,\)"),
    (np.ones((0, 5)), {}, "no training rows"),
    (np.full((3, 5), np.inf), {}, "3 of 3 rows"),
    (np.float32(1), {}, r"shape \(\)"),
    (np.ones((3, 5)), {"num_bits": 0}, "num_bits is 0"),
    (np.ones((3, 5)), {"num_bits": 1.5}, "num_bits is 1.5, expected a whole number"),
    (np.ones((3, 5)), {"weights": np.ones(4)}, r"weights have shape \(4,\)"),
    (np.ones((3, 5)), {"weights": np.zeros(3)}, "all weights are 0"),
  ],
)
def test_bad_input_is_refused(key, name, features, options, message):
  with pytest.raises(InputError, match=message):
    FITS[name](features, **{"num_bits": 2, "key": key} | options)


def test_encoding_refuses_other_widths(features, key):
  with pytest.raises(InputError, match=r"\(2, 5\), the hash function expects \[n, 12\]"):
    encode(lsh(features, 4, key=key), np.ones((2, 5)))


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf])
@pytest.mark.parametrize("fit", [lsh, pca_rotation, itq])
def test_weights_that_mean_nothing_are_refused(features, key, fit, wrong):
  weights = np.ones(len(features), np.float32)
  weights[3] = wrong
  with pytest.raises(InputError, match="weights hold NaN, infinity or negative numbers"):
    fit(features, 4, key=key, weights=weights)
