"""ITQ on discriminant directions, against SciPy's generalised eigenvectors in float64."""

import functools

import jax
import numpy as np
import pytest
import scipy.linalg
from jax.sharding import PartitionSpec as P

from udh_jax.coding import encode, itq
from udh_jax.coding.discriminant import (
  LEAST,
  RIDGE,
  TIE,
  discriminant_directions,
  discriminant_itq,
)
from udh_jax.errors import InputError

KEY = jax.random.key(3)


def fit(features, labels, bits, *, weights=None, axis_name=None, key=KEY, **options):
  turning = {"flatness": options.pop("flatness", 0.0), "key": key}
  given = {"weights": weights, "axis_name": axis_name}
  directions = discriminant_directions(features, labels, **options, **given)
  options = turning | given
  return discriminant_itq(features, directions, bits, **options)


def scattered(rng, n=96, d=10, k=4, h=3):
  centres = rng.normal(size=(k, d)) * np.linspace(2, 0.1, d)
  truth = rng.integers(0, k, n)
  features = (centres[truth] + rng.normal(size=(n, d)) + 5).astype(np.float32)
  labels = np.stack([np.where(rng.random(n) < 0.8, truth, rng.integers(0, k, n))] * h, axis=1)
  labels[:, 1] = (labels[:, 1] + 1) % k  # another name for the same clusters
  labels[:, 2] = rng.integers(0, k, n)
  labels[:7, 0] = -1
  return features, labels.astype(np.int32)


def oracle(features, labels, weights, bits, power, flatness):
  """The d x d matrix of squared lengths that codes are made by: V V^T."""
  rows = features[weights > 0].astype(np.float64)
  as_they_are = rows
  labels = labels[weights > 0]
  rows = rows - rows.mean(axis=0)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  rows -= rows.mean(axis=0)
  total, between = rows.T @ rows / len(rows), 0
  for clusters in labels.T:
    for k in np.unique(clusters[clusters >= 0]):
      members = rows[clusters == k]
      between = between + len(members) / len(rows) * np.outer(members.mean(0), members.mean(0))
  between = between / labels.shape[1]
  within = total - between
  metric = within + RIDGE * np.trace(total) * np.eye(len(total))
  vectors = scipy.linalg.eigh(between + TIE * within, metric)[1][:, ::-1][:, :bits]
  ratios = np.diag(vectors.T @ between @ vectors)
  vectors = vectors * np.maximum(ratios, LEAST * ratios.max()) ** (power / 2)
  vectors = vectors / (as_they_are @ vectors).std(axis=0) ** flatness
  return vectors @ vectors.T


@pytest.mark.parametrize(
  ("bits", "power", "flatness"),
  [(3, 0.0, 0.0), (4, 0.5, 0.25), (10, 1.0, 0.0), (1, 0.25, 1.0), (4, 1.0, 1.0)],
)
def test_directions_are_those_of_scipy(rng, bits, power, flatness):
  features, labels = scattered(rng)
  weights = (rng.random(len(features)) < 0.9).astype(np.float32)
  options = {"num_clusters": 4, "power": power, "flatness": flatness}
  found = fit(features, labels, bits, weights=weights, **options)
  expected = oracle(features, labels, weights, bits, power, flatness)
  projection = np.asarray(found.projection, np.float64)
  np.testing.assert_allclose(
    projection @ projection.T, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()
  )
  np.testing.assert_allclose(found.mean, features[weights > 0].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("bits", "flatness"), [(6, 0.0), (6, 0.5), (30, 0.0)])
def test_eight_devices_make_the_same_codes(rng, mesh, bits, flatness):
  """Beyond the nine directions in which three clusterings into four can differ, too."""
  features, labels = scattered(rng, d=40)
  features = features * np.geomspace(4, 0.2, 40, dtype=np.float32)
  weights = np.ones(len(features), np.float32)
  weights[-5:] = 0
  options = {"bits": bits, "num_clusters": 4, "power": 0.5, "flatness": flatness}
  one = fit(features, labels, weights=weights, **options)
  mapped = jax.shard_map(
    lambda f, c, w: fit(f, c, weights=w, axis_name="data", **options),
    mesh=mesh,
    in_specs=(P("data"),) * 3,
    out_specs=P(),
  )
  many = jax.jit(mapped)(features, labels, weights)
  margins = np.abs((features - np.asarray(one.mean)) @ np.asarray(one.projection))
  clear = margins > 1e-3 * margins.max()
  np.testing.assert_array_equal(
    np.asarray(encode(one, features))[clear], np.asarray(encode(many, features))[clear]
  )


def test_masked_rows_may_hold_anything(rng, mesh):
  features, labels = scattered(rng)
  weights = np.ones(len(features), np.float32)
  weights[::12] = 0
  spoilt = np.where(weights[:, None] > 0, features, np.nan)

  def directions(features, labels, weights, axis_name=None):
    options = {"num_clusters": 4, "power": 0.5, "axis_name": axis_name}
    return discriminant_directions(features, labels, weights=weights, **options)

  expected = directions(features, labels, weights)
  mapped = jax.shard_map(
    functools.partial(directions, axis_name="data"),
    mesh=mesh,
    in_specs=(P("data"),) * 3,
    out_specs=P(),
  )
  for found in (directions(spoilt, labels, weights), mapped(spoilt, labels, weights)):
    lengths = (matrix.projection @ matrix.projection.T for matrix in (found, expected))
    np.testing.assert_allclose(*lengths, rtol=1e-3, atol=1e-2)


def test_clusters_gather_as_the_power_grows(rng):
  """Two clusters apart in a direction of little variance: raw ITQ does not see them."""
  truth = np.arange(200) % 2
  features = rng.normal(size=(200, 8)) * np.linspace(4, 1, 8)
  features[:, 7] = rng.normal(size=200) * 0.1 + 2 * truth
  labels = truth[:, None].astype(np.int32)

  def apart(power):
    fitted = fit(features, labels, 4, num_clusters=2, power=power)
    codes = np.asarray(encode(fitted, features), float)
    alike = codes @ codes.T / 4
    same = truth[:, None] == truth
    return alike[same].mean() - alike[~same].mean()

  assert apart(0.0) < apart(0.5) < apart(1.0)
  assert apart(1.0) > 1.5


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize(("power", "flatness"), [(0.0, 0.0), (1.0, 0.0), (1.0, 0.25)])
def test_what_has_no_scatter_still_gets_codes(n, power, flatness):
  features, labels = np.full((n, 6), 3.0, np.float32), np.zeros((n, 2), np.int32)
  fitted = fit(features, labels, 4, num_clusters=1, power=power, flatness=flatness)
  codes = np.asarray(encode(fitted, features))
  assert np.isfinite(fitted.projection).all() and np.isin(codes, (-1, 1)).all()


def test_more_bits_than_clusters_tell_apart(rng):
  features, labels = scattered(rng, k=2, h=3)
  fitted = fit(features, labels % 2, 10, num_clusters=2, power=1.0)
  codes = np.asarray(encode(fitted, features), float)
  assert np.isfinite(fitted.projection).all()
  assert (np.abs(codes.mean(axis=0)) < 0.9).all()  # no bit is the same for nearly all


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"bits": 0}, "0 bits from 10 features"),
    ({"bits": 11}, "11 bits from 10 features"),
    ({"num_clusters": 0}, "num_clusters is 0"),
    ({"power": -1.0}, r"power is -1\.0"),
    ({"flatness": 1.5}, r"flatness is 1\.5, expected a finite number of 0 to 1"),
    ({"labels": np.zeros(96, np.int32)}, r"expected \[n, d\] and integers \[n, H\]"),
    ({"features": np.full((96, 10), np.nan)}, "hold NaN or infinity"),
    ({"features": np.zeros((0, 4)), "labels": np.zeros((0, 2), int)}, "no training rows"),
    ({"labels": np.zeros((96, 0), int)}, r"labels are int[0-9]+ of shape \(96, 0\)"),
    ({"weights": np.zeros(96)}, "all weights are 0"),
    ({"weights": np.ones(95)}, r"weights have shape \(95,\)"),
    ({"num_clusters": 2}, "labels run from -?[0-9] to [0-9], expected 0 to 1"),
    ({"labels": np.zeros((96, 2))}, r"labels are float[0-9]+ .* expected \[n, d\] and integers"),
  ],
)
def test_invalid_input_is_named(rng, changes, words):
  features, labels = scattered(rng)
  given = {"features": features, "labels": labels, "bits": 4, "num_clusters": 4, "power": 0.5}
  with pytest.raises(InputError, match=words):
    fit(**given | changes)


def test_features_of_another_width_are_refused(rng):
  features, labels = scattered(rng)
  directions = discriminant_directions(features, labels, num_clusters=4, power=0.5)
  with pytest.raises(InputError, match=r"features have shape \(96, 9\), the directions expect"):
    discriminant_itq(features[:, 1:], directions, 4, key=KEY)


def test_the_rotation_is_that_of_itq(rng):
  features, labels = scattered(rng, n=400)
  directions = discriminant_directions(features, labels, num_clusters=4, power=0.5)
  found = discriminant_itq(features, directions, 6, key=KEY)
  mean, first = (np.asarray(x, np.float64) for x in (directions.mean, directions.projection[:, :6]))
  turned = itq(((features - mean) @ first).astype(np.float32), 6, key=KEY)
  expected = first @ np.asarray(turned.projection)
  np.testing.assert_allclose(found.projection, expected, atol=2e-3 * abs(expected).max())


def test_directions_that_no_cluster_differs_in_are_those_of_most_variance(rng):
  variances = np.geomspace(4, 0.01, 20)
  features = rng.normal(size=(4000, 20)) * np.sqrt(variances)
  truth = rng.integers(0, 2, 4000)
  features[:, 19] += np.where(truth, 3, -3)  # the one direction in which the clusters differ
  found = discriminant_directions(
    features.astype(np.float32), truth[:, None], num_clusters=2, power=0.5
  )
  main = np.abs(np.asarray(found.projection)).argmax(axis=0)
  assert main[0] == 19 and set(main[1:5]) == {0, 1, 2, 3}


def test_masked_rows_may_hold_anything_where_directions_are_flattened(rng):
  features = rng.normal(size=(40, 6)).astype(np.float32)
  labels = rng.integers(0, 3, (40, 2))
  weights = (np.arange(40) > 3).astype(np.float32)
  key = jax.random.key(0)
  found = []
  for masked in (0.0, np.nan):
    features[:4] = masked
    directions = discriminant_directions(
      features, labels, num_clusters=3, power=0.5, weights=weights
    )
    found.append(
      discriminant_itq(features, directions, 4, key=key, flatness=1.0, weights=weights).projection
    )
  np.testing.assert_array_equal(*found)
