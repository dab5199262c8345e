import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax import losses


@pytest.fixture
def logits(rng):
  return rng.normal(size=(7, 5)).astype(np.float32) * 3


@pytest.fixture
def weights():
  return np.array([1, 0, 2, 0.5, 0, 1, 3], np.float32)


def test_quantisation_is_the_mean_over_rows_and_bits(logits, weights):
  squares = (logits - np.where(logits >= 0, 1, -1)) ** 2
  np.testing.assert_allclose(losses.quantisation_loss(logits), squares.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    losses.quantisation_loss(logits, weights=weights),
    np.average(squares.mean(axis=1), weights=weights),
    rtol=1e-5,
  )


def test_quantisation_pulls_towards_the_sign_and_zero_towards_plus_one():
  outputs = jnp.array([[0.5, -0.25, 0.0]])
  gradient = jax.grad(losses.quantisation_loss)(outputs)
  np.testing.assert_allclose(gradient, 2 * (outputs - jnp.array([[1, -1, 1]])) / 3, rtol=1e-6)
  assert losses.quantisation_loss(jnp.array([[1.0, -1.0]])) == 0


def test_bit_balance_is_the_mean_square_of_the_bit_means(logits, weights):
  np.testing.assert_allclose(
    losses.bit_balance_loss(logits), (logits.mean(axis=0) ** 2).mean(), rtol=1e-5
  )
  np.testing.assert_allclose(
    losses.bit_balance_loss(logits, weights=weights),
    (np.average(logits, axis=0, weights=weights) ** 2).mean(),
    rtol=1e-5,
  )


def test_balanced_bits_cost_nothing_and_constant_bits_cost_one():
  assert losses.bit_balance_loss(jnp.array([[1.0, -1.0], [-1.0, 1.0]])) == 0
  assert losses.bit_balance_loss(jnp.array([[1.0, -1.0], [1.0, -1.0]])) == 1
