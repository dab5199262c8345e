import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax import losses


def softmax(x):
  x = np.exp(x - x.max(axis=1, keepdims=True))
  return x / x.sum(axis=1, keepdims=True)


@pytest.fixture
def logits(rng):
  return rng.normal(size=(7, 5)).astype(np.float32) * 3


@pytest.fixture
def targets(rng):
  return softmax(rng.normal(size=(7, 5)))


@pytest.fixture
def weights():
  return np.array([1, 0, 2, 0.5, 0, 1, 3], np.float32)


def test_soft_cross_entropy_is_the_weighted_mean_of_the_definition(logits, targets, weights):
  rows = -(targets * np.log(softmax(logits))).sum(axis=1)
  np.testing.assert_allclose(losses.soft_cross_entropy(logits, targets), rows.mean(), rtol=1e-5)
  np.testing.assert_allclose(
    losses.soft_cross_entropy(logits, targets, weights=weights),
    np.average(rows, weights=weights),
    rtol=1e-5,
  )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_smoothed_cross_entropy_spreads_the_target(logits, weights, smoothing):
  labels = np.array([0, -1, 2, 4, -1, 1, 1])  # rows 1 and 4 have weight 0
  target = np.full((7, 5), smoothing / 5)
  for row, label in enumerate(labels):
    if label >= 0:
      target[row, label] += 1 - smoothing
  rows = -(target * np.log(softmax(logits))).sum(axis=1)
  np.testing.assert_allclose(
    losses.smoothed_cross_entropy(logits, labels, smoothing=smoothing, weights=weights),
    np.average(rows, weights=weights),
    rtol=1e-5,
  )


def test_smoothed_cross_entropy_of_a_known_case():
  # Uniform logits: log 4 whatever the label and the smoothing.
  loss = losses.smoothed_cross_entropy(jnp.zeros((2, 4)), np.array([1, 3]), smoothing=0.3)
  assert loss == pytest.approx(np.log(4))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_is_the_scaled_divergence(logits, targets, weights, temperature):
  student = softmax(logits / temperature)
  rows = (targets * np.log(targets / student)).sum(axis=1)
  np.testing.assert_allclose(
    losses.distillation_loss(targets, logits, temperature=temperature, weights=weights),
    temperature**2 * np.average(rows, weights=weights),
    rtol=1e-5,
  )


def test_distillation_vanishes_where_the_student_agrees(logits):
  loss = losses.distillation_loss(softmax(logits / 2), logits, temperature=2.0)
  assert loss == pytest.approx(0, abs=1e-6)


def test_distillation_takes_certain_teachers(logits):
  certain = np.eye(5)[[0, 1, 2, 3, 4, 0, 1]]
  loss, gradient = jax.value_and_grad(
    lambda z: losses.distillation_loss(certain, z, temperature=1.0)
  )(logits)
  expected = -np.log(softmax(logits))[np.arange(7), [0, 1, 2, 3, 4, 0, 1]].mean()
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  assert np.isfinite(gradient).all()


def test_the_gradient_of_distillation_keeps_its_size_over_temperatures(logits, targets):
  def gradient(teacher, temperature):
    return jax.grad(lambda z: losses.distillation_loss(teacher, z, temperature=temperature))(logits)

  expected = 3 * (softmax(logits / 3) - targets) / 7
  np.testing.assert_allclose(gradient(targets, 3.0), expected, rtol=1e-4, atol=1e-6)
  uniform = np.full((7, 5), 0.2)
  sizes = [np.abs(gradient(uniform, temperature)).sum() for temperature in (50.0, 100.0)]
  assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


def test_no_gradient_reaches_the_teacher(logits, targets):
  gradient = jax.grad(lambda p: losses.distillation_loss(p, logits, temperature=2.0))(
    jnp.asarray(targets)
  )
  np.testing.assert_array_equal(gradient, 0)


def test_options_may_be_learned_or_scheduled(rng):
  logits = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
  targets = jax.nn.softmax(jnp.asarray(rng.normal(size=(6, 4))))
  labels = np.arange(6) % 4

  def both(value):
    return losses.distillation_loss(
      targets, logits, temperature=value
    ) + losses.smoothed_cross_entropy(logits, labels, smoothing=value / 4)

  np.testing.assert_allclose(jax.jit(both)(0.8), both(0.8), rtol=1e-5)
  assert np.isfinite(jax.jit(jax.grad(both))(0.8))


def test_rows_without_a_label_are_left_out(rng):
  logits = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
  labels = np.array([0, -1, 3, 2, -1, 1])
  known = labels >= 0
  expected = losses.smoothed_cross_entropy(logits[known], labels[known], smoothing=0.1)
  np.testing.assert_allclose(
    losses.smoothed_cross_entropy(logits, labels, smoothing=0.1), expected, rtol=1e-6
  )
