"""The race of k-means++ draws what k-means++ should draw."""

import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.clustering.fold import Rows
from udh_jax.clustering.seeding import k_means_plus_plus


def rows_of(features, weights=None):
  features = jnp.asarray(features, jnp.float32)
  weights = jnp.asarray(np.ones(len(features)) if weights is None else weights, jnp.float32)
  mean = jnp.zeros(features.shape[1], jnp.float32)
  return Rows(features, weights, mean, jnp.float32(1), None, None)


def test_rows_are_drawn_by_squared_distance():
  features = np.array([[0.0], [1.0], [3.0]])
  draw = jax.jit(jax.vmap(lambda key: k_means_plus_plus(rows_of(features), 3, key)[:, 0]))
  drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 6000)))
  # First uniform; second by squared distance to the first; third is what is left.
  for order, chance in [
    ((0, 1, 3), 1 / 10 / 3),
    ((0, 3, 1), 9 / 10 / 3),
    ((1, 0, 3), 1 / 5 / 3),
    ((1, 3, 0), 4 / 5 / 3),
    ((3, 0, 1), 9 / 13 / 3),
    ((3, 1, 0), 4 / 13 / 3),
  ]:
    share = (drawn == np.array(order)).all(axis=1).mean()
    assert abs(share - chance) < 4 * np.sqrt(chance / 6000), (order, share, chance)


def test_masked_rows_are_never_drawn():
  features, weights = np.arange(6.0)[:, None], np.array([0.0, 1.0, 0.0, 1.0, 1.0, 0.0])
  drawn = k_means_plus_plus(rows_of(features, weights), 3, jax.random.key(1))
  assert sorted(np.asarray(drawn)[:, 0]) == [1, 3, 4]


def test_fewer_distinct_rows_than_centroids_end_finite():
  drawn = k_means_plus_plus(rows_of(np.ones((4, 2))), 4, jax.random.key(2))
  np.testing.assert_array_equal(drawn, np.ones((4, 2)))
