import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.losses.labels import label_cross_entropy


@pytest.fixture
def class_weights(rng):
  return rng.normal(size=(5, 6)).astype(np.float32)


def test_cross_entropy_of_no_label_at_all_is_zero(class_weights):
  targets = np.zeros((3, 5), bool)
  loss, gradient = jax.value_and_grad(lambda z: label_cross_entropy(z, targets))(jnp.ones((3, 5)))
  assert loss == 0
  np.testing.assert_array_equal(gradient, 0)
