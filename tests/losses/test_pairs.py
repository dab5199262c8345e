import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.losses.cross_modal import reconstruction_loss
from udh_jax.losses.pairs import pair_loss


def test_small_weights_are_weights(rng):
  outputs, (targets, known) = rng.normal(size=(4, 3)), rng.random((2, 4, 4))
  found = pair_loss(outputs, targets, known, weights=np.full(4, 1e-8, np.float32))
  assert np.isclose(found, pair_loss(outputs, targets, known), rtol=1e-5)


def test_the_pair_loss_is_the_mean_over_all_pairs(rng):
  outputs, targets = rng.uniform(-1, 1, (6, 4)), rng.uniform(-1, 1, (6, 6))
  pair_weights, weights = rng.uniform(0, 1, (6, 6)), np.array([1, 1, 0, 1, 0, 1.0])
  rows = np.flatnonzero(weights)
  total = sum(
    pair_weights[i, j] * (outputs[i] @ outputs[j] / 4 - targets[i, j]) ** 2
    for i in rows
    for j in rows
  )
  found = pair_loss(outputs, targets, pair_weights, weights=weights)
  np.testing.assert_allclose(found, total / len(rows) ** 2, rtol=1e-5)
  spoilt = outputs.copy()
  spoilt[weights == 0] = 1e9
  value, gradient = jax.value_and_grad(
    lambda u: pair_loss(u, targets, pair_weights, weights=weights)
  )(spoilt)
  np.testing.assert_allclose(value, found, rtol=1e-6)
  np.testing.assert_array_equal(gradient[weights == 0], 0)
  assert pair_loss(outputs, targets, pair_weights, weights=np.zeros(6)) == 0


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_many_narrow_weights_are_added_up_in_float32(dtype):
  rows = 300
  outputs, targets = jnp.ones((rows, 2)), jnp.zeros((rows, rows))
  weights = jnp.ones(rows, dtype)
  assert float(pair_loss(outputs, targets, jnp.ones((rows, rows)), weights=weights)) == 1.0
  assert float(reconstruction_loss(outputs, outputs, targets, weights=weights)) == pytest.approx(1)
