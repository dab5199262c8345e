import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.losses.cross_modal import joint_semantics, reconstruction_loss
from udh_jax.similarity.cosine import unit_rows


def cosines(first, second):
  """The definition, one pair at a time, in float64."""
  return np.array(
    [[a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) for b in second] for a in first]
  )


def affinity(images, texts, beta, eta, mu):
  """DJSRH's joint-semantics matrix as the paper writes it."""
  first = beta * (2 * cosines(images, images) - 1) + (1 - beta) * (2 * cosines(texts, texts) - 1)
  return mu * ((1 - eta) * first + eta * first @ first.T / len(images))


@pytest.fixture
def batch(rng):
  return rng.normal(size=(7, 5)), rng.random((7, 3))


@pytest.mark.parametrize(("beta", "eta", "mu"), [(0.3, 0.4, 1.5), (1.0, 0.0, 1.0), (0.0, 1.0, 2)])
def test_joint_semantics_is_the_papers_matrix(batch, beta, eta, mu):
  found = joint_semantics(*batch, beta=beta, eta=eta, mu=mu)
  np.testing.assert_allclose(found, affinity(*batch, beta, eta, mu), atol=1e-5)
  np.testing.assert_allclose(found, found.T, atol=1e-6)


def test_pairs_of_weight_zero_change_nothing_for_the_others(batch, rng):
  images, texts = (np.concatenate([x, rng.normal(size=(4, x.shape[1]))]) for x in batch)
  weights = jnp.array([1.0] * 7 + [0.0] * 4)
  options = {"beta": 0.3, "eta": 0.4, "mu": 1.5}
  found = joint_semantics(images, texts, **options, weights=weights)
  np.testing.assert_allclose(found[:7, :7], joint_semantics(*batch, **options), atol=1e-5)
  outputs = rng.normal(size=(2, 11, 6))
  whole = reconstruction_loss(*outputs[:, :7], found[:7, :7])
  assert np.isclose(reconstruction_loss(*outputs, found, weights=weights), whole, rtol=1e-5)


def test_what_is_not_finite_in_rows_of_weight_zero_counts_nowhere(batch, rng):
  images, texts = (np.concatenate([x, np.full((2, x.shape[1]), np.nan)]) for x in batch)
  weights = jnp.array([1.0] * 7 + [0.0] * 2)
  options = {"beta": 0.3, "eta": 0.4, "mu": 1.5}
  found = joint_semantics(images, texts, **options, weights=weights)
  np.testing.assert_allclose(found[:7, :7], joint_semantics(*batch, **options), atol=1e-5)
  outputs = rng.normal(size=(2, 9, 6))
  outputs[:, 7:], target = np.nan, np.asarray(found).copy()
  target[7:] = np.inf
  value, gradient = jax.value_and_grad(reconstruction_loss)(
    jnp.asarray(outputs[0]), outputs[1], target, weights=weights
  )
  whole = reconstruction_loss(*outputs[:, :7], found[:7, :7])
  assert np.isclose(value, whole, rtol=1e-5) and np.isfinite(gradient[:7]).all()


def test_small_weights_are_weights(rng):
  first, second, target = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), rng.normal(size=(5, 5))
  whole = reconstruction_loss(first, second, target)
  found = reconstruction_loss(first, second, target, weights=jnp.full(5, 1e-8))
  assert np.isclose(found, whole, rtol=1e-5)


def test_reconstruction_is_the_mean_of_squared_differences(rng):
  first, second, target = rng.normal(size=(5, 4)), rng.normal(size=(5, 4)), rng.normal(size=(5, 5))
  expected = np.mean((cosines(first, second) - target) ** 2)
  assert np.isclose(reconstruction_loss(first, second, target), expected, rtol=1e-5)
  outputs = jax.jit(reconstruction_loss)(first, second, target)
  assert np.isclose(outputs, expected, rtol=1e-5)


def test_rows_of_zeros_have_finite_gradients():
  gradient = jax.grad(lambda x: reconstruction_loss(x, x, jnp.ones((3, 3))))(jnp.zeros((3, 4)))
  assert np.isfinite(gradient).all()
  np.testing.assert_array_equal(unit_rows(jnp.zeros((2, 3))), 0)


def test_no_pair_that_counts_gives_zero(rng):
  outputs = rng.normal(size=(3, 4))
  loss = reconstruction_loss(outputs, outputs, jnp.zeros((3, 3)), weights=jnp.zeros(3))
  assert loss == 0


@pytest.mark.parametrize(
  ("change", "message"),
  [({"beta": 1.2}, "beta is 1.2"), ({"eta": -0.1}, "eta is -0.1")],
)
def test_shares_outside_their_range_are_refused(batch, change, message):
  with pytest.raises(InputError, match=message):
    joint_semantics(*batch, **{"beta": 0.5, "eta": 0.5, "mu": 1.5, **change})


def test_shapes_that_disagree_are_refused(batch):
  images, texts = batch
  with pytest.raises(InputError, match=r"\(7, 5\) and \(6, 3\)"):
    joint_semantics(images, texts[:6], beta=0.5, eta=0.5, mu=1.5)
  with pytest.raises(InputError, match="target"):
    reconstruction_loss(images, images, np.zeros((7, 6)))
