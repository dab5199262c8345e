"""The pure pieces of the stages against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from udh_jax.errors import InputError
from udh_jax.stages.cluster import margins
from udh_jax.stages.features import centre_and_normalise
from udh_jax.stages.finetune import trusted_rows
from udh_jax.stages.soft_labels import agreement
from udh_jax.stages.training import make_optimizer


def test_features_are_centred_on_the_weighted_rows_and_of_unit_length(mesh, rng):
  features = rng.normal(size=(16, 5)).astype(np.float32) + 100
  weights = np.r_[np.ones(9), np.zeros(7)].astype(np.float32)
  features[12] = features[:9].mean(axis=0)
  centred = features - features[:9].mean(axis=0)
  lengths = np.linalg.norm(centred, axis=1)
  expected = np.where(lengths[:, None] > 1e-3, centred / np.maximum(lengths, 1e-3)[:, None], 0)
  sharded = jax.shard_map(
    lambda x, w: centre_and_normalise(x, w, axis_name="data"),
    mesh=mesh,
    in_specs=(P("data"), P("data")),
    out_specs=(P("data"), P("data"), P()),
  )
  for scaled, found, centre in (
    centre_and_normalise(features, weights),
    sharded(features, weights),
  ):
    np.testing.assert_allclose(np.delete(scaled, 12, 0), np.delete(expected, 12, 0), atol=1e-4)
    np.testing.assert_allclose(centre, features[:9].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found, lengths, atol=1e-4)


def test_margin_is_the_gap_to_the_nearest_other_centroid(rng):
  features, centroids = rng.normal(size=(300, 3)), rng.normal(size=(4, 3))
  labels = rng.integers(4, size=300)
  squared = ((features[:, None] - centroids) ** 2).sum(axis=2)
  own = squared[np.arange(300), labels]
  squared[np.arange(300), labels] = np.inf
  np.testing.assert_allclose(
    margins(jnp.asarray(features), jnp.asarray(labels), jnp.asarray(centroids)),
    squared.min(axis=1) - own,
    atol=1e-4,
  )


def test_one_cluster_has_nothing_to_be_close_to():
  assert np.isinf(margins(jnp.ones((3, 2)), jnp.zeros(3, int), jnp.ones((1, 2)))).all()


@pytest.mark.parametrize("fraction", [0.01, 0.4, 0.5, 1.0])
def test_trusted_rows_are_the_largest_margins_of_each_cluster(rng, fraction):
  rows = np.sort(rng.permutation(100)[:61])
  labels, margin = rng.integers(5, size=100), rng.normal(size=100)
  kept = trusted_rows(rows, labels, margin, fraction)
  assert (np.diff(kept) > 0).all()
  for label in range(5):
    members = [row for row in rows if labels[row] == label]
    best = sorted(members, key=lambda row: -margin[row])[: int(np.ceil(len(members) * fraction))]
    assert sorted(best) == [row for row in kept if labels[row] == label]


@pytest.mark.parametrize("fraction", [0.0, 1.1])
def test_a_fraction_without_sense_is_refused(fraction):
  with pytest.raises(InputError, match="trusted_fraction"):
    trusted_rows(np.arange(3), np.zeros(3, int), np.zeros(3), fraction)


def test_views_agree_fully_with_themselves_and_not_at_all_with_another_class():
  certain = jnp.eye(3)
  np.testing.assert_allclose(agreement(certain, certain), 1.0)
  np.testing.assert_allclose(agreement(certain, certain[jnp.array([1, 2, 0])]), 0.0)


def test_the_classifier_has_a_learning_rate_of_its_own():
  settings = ConfigDict(
    {"steps": 100, "learning_rate": 1e-3, "head_learning_rate": 1e-1, "weight_decay": 0.0}
  )
  parameters = {"backbone": jnp.ones((2, 2)), "hash": jnp.ones((2, 2)), "head": jnp.ones((2, 2))}
  optimizer = make_optimizer(settings)
  state = optimizer.init(parameters)
  for _ in range(5):  # the warm-up is over
    updates, state = optimizer.update(parameters, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
  moved = {name: float(1 - value[0, 0]) for name, value in parameters.items()}
  np.testing.assert_allclose(moved["head"] / moved["backbone"], 100, rtol=0.01)
  np.testing.assert_allclose(moved["hash"], moved["backbone"], rtol=1e-6)
