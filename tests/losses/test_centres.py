import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.losses.centres import central_similarity_loss, greedy_penalty, majority_centres


@pytest.fixture
def outputs(rng):
  return np.tanh(rng.normal(size=(9, 6))).astype(np.float32)


WEIGHTS = np.array([1, 0, 2, 0.5, 1, 0, 3, 1, 1], np.float32)


def multi_hot(lists, k=5):
  found = np.zeros((len(lists), k), bool)
  for row, classes in enumerate(lists):
    found[row, classes] = True
  return found


def test_the_greedy_penalty_is_the_mean_cube(outputs):
  rows = (np.abs(np.abs(outputs.astype(np.float64)) - 1) ** 3).mean(axis=1)
  np.testing.assert_allclose(greedy_penalty(outputs), rows.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    greedy_penalty(outputs, weights=WEIGHTS), np.average(rows, weights=WEIGHTS), rtol=1e-5
  )
  # Beyond 1, a bit is pulled back: the cube of the distance, not of the difference.
  assert greedy_penalty(np.array([[2.0]])) == 1


def test_the_centre_of_several_classes_is_their_majority():
  centres = np.array([[1, 1, -1, 1], [1, -1, -1, -1], [-1, -1, -1, 1]])
  tie_break = np.array([-1, 1, 1, -1])
  targets = multi_hot([[0], [0, 1], [0, 1, 2], []], 3)
  np.testing.assert_array_equal(
    majority_centres(centres, targets, tie_break),
    [[1, 1, -1, 1], [1, 1, -1, -1], [1, -1, -1, 1], [-1, 1, 1, -1]],
  )


def test_central_similarity_is_binary_cross_entropy(outputs, rng):
  centres = rng.choice([-1, 1], outputs.shape)
  chance, bits = (1 + outputs.astype(np.float64)) / 2, (centres + 1) / 2
  rows = -(bits * np.log(chance) + (1 - bits) * np.log(1 - chance)).mean(axis=1)
  np.testing.assert_allclose(
    central_similarity_loss(outputs, centres, weights=WEIGHTS),
    np.average(rows, weights=WEIGHTS),
    rtol=1e-5,
  )
  value, gradient = jax.value_and_grad(central_similarity_loss)(
    jnp.array([[1.0, -1.0]]), jnp.array([[-1.0, -1.0]])
  )
  assert np.isfinite(value) and np.isfinite(gradient).all()
