"""The pure pieces of the stages against plain numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from udh_jax.stages.features import centre_and_normalise
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


def test_views_agree_fully_with_themselves_and_not_at_all_with_another_class():
  certain = jnp.eye(3)[:, None]
  np.testing.assert_allclose(agreement(certain, certain), 1.0)
  np.testing.assert_allclose(agreement(certain, certain[jnp.array([1, 2, 0])]), 0.0)


def test_what_starts_at_random_has_a_learning_rate_of_its_own():
  settings = ConfigDict(
    {"steps": 100, "learning_rate": 1e-3, "head_learning_rate": 1e-1, "weight_decay": 0.0}
  )
  parameters = {"backbone": jnp.ones((2, 2)), "hash": jnp.ones((2, 2)), "head": jnp.ones((2, 2))}
  optimizer = make_optimizer(settings, frozenset({"hash", "head"}))
  state = optimizer.init(parameters)
  for _ in range(5):  # the warm-up is over
    updates, state = optimizer.update(parameters, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
  moved = {name: float(1 - value[0, 0]) for name, value in parameters.items()}
  np.testing.assert_allclose(moved["head"] / moved["backbone"], 100, rtol=0.01)
  np.testing.assert_allclose(moved["hash"], moved["head"], rtol=1e-6)
