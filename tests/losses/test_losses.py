"""Loss functions: values against numpy, gradients, dtypes, weights and bad shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from udh_jax import losses
from udh_jax.errors import InputError
from udh_jax.losses.reduction import weighted_mean


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


def plain_nt_xent(first, second, temperature):
  views = [*first, *second]
  m, total = len(first), 0.0
  for i, view in enumerate(views):
    scores = {
      j: float(view @ other / np.linalg.norm(view) / np.linalg.norm(other)) / temperature
      for j, other in enumerate(views)
      if j != i
    }
    total += np.log(sum(np.exp(s) for s in scores.values())) - scores[(i + m) % (2 * m)]
  return total / (2 * m)


@pytest.mark.parametrize("m", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.1, 0.3, 1.0])
def test_nt_xent_agrees_with_a_plain_loop(rng, m, temperature):
  first, second = rng.normal(size=(2, m, 6))
  np.testing.assert_allclose(
    losses.nt_xent(first, second, temperature=temperature),
    plain_nt_xent(first, second, temperature),
    rtol=1e-4,
    atol=1e-6,
  )


def test_nt_xent_is_symmetric_and_scale_free(rng):
  first, second = rng.normal(size=(2, 5, 6))
  loss = losses.nt_xent(first, second, temperature=0.3)
  assert losses.nt_xent(second, 9 * first, temperature=0.3) == pytest.approx(float(loss), rel=1e-5)


def test_nt_xent_has_finite_gradients_at_zero_rows_and_equal_views(rng):
  views = rng.normal(size=(4, 6))
  views[2] = 0
  gradients = jax.grad(lambda a, b: losses.nt_xent(a, b, temperature=0.3), argnums=(0, 1))(
    jnp.asarray(views), jnp.asarray(views)
  )
  assert all(np.isfinite(gradient).all() for gradient in gradients)


LABELS = np.array([0, 1, 2, 3, 4, 0, 1])
WEIGHTED = {
  "soft_cross_entropy": lambda x, w: losses.soft_cross_entropy(
    x, jnp.full(x.shape, 0.2), weights=w
  ),
  "smoothed_cross_entropy": lambda x, w: losses.smoothed_cross_entropy(x, LABELS, weights=w),
  "distillation_loss": lambda x, w: losses.distillation_loss(
    jnp.full(x.shape, 0.2), x, temperature=2.0, weights=w
  ),
  "quantisation_loss": lambda x, w: losses.quantisation_loss(x, weights=w),
  "bit_balance_loss": lambda x, w: losses.bit_balance_loss(x, weights=w),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_all_weights_zero_cost_nothing_and_pull_nowhere(logits, name):
  loss, gradient = jax.value_and_grad(WEIGHTED[name])(logits, np.zeros(7))
  assert loss == 0
  np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_row_of_weight_zero_has_no_say(logits, weights, name):
  spoilt = logits.copy()
  spoilt[weights == 0] = 1e6
  function = jax.jit(jax.value_and_grad(WEIGHTED[name]))
  loss, gradient = function(logits, weights)
  other_loss, other_gradient = function(spoilt, weights)
  np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
  np.testing.assert_allclose(other_gradient, gradient, rtol=1e-6)


def test_a_row_of_weight_zero_may_even_be_undefined():
  values = np.array([2.0, np.nan, 4.0, np.inf], np.float32)
  assert weighted_mean(values, np.array([1, 0, 3, 0])) == 3.5


@pytest.mark.parametrize("name", WEIGHTED)
def test_narrow_inputs_are_reduced_in_float32(logits, name):
  narrow = jnp.asarray(logits, jnp.bfloat16)
  loss = WEIGHTED[name](narrow, None)
  assert loss.dtype == jnp.float32
  assert loss.shape == ()
  np.testing.assert_allclose(loss, WEIGHTED[name](narrow.astype(jnp.float32), None), rtol=1e-6)
  assert losses.nt_xent(narrow, narrow, temperature=0.3).dtype == jnp.float32


@pytest.mark.parametrize("name", WEIGHTED)
def test_gradients_agree_with_finite_differences(logits, weights, name):
  check_grads(
    lambda x: WEIGHTED[name](x, weights), (logits,), order=1, modes=["rev"], eps=1e-2, rtol=0.05
  )


@pytest.mark.parametrize("name", WEIGHTED)
def test_large_logits_stay_finite(logits, name):
  loss, gradient = jax.value_and_grad(WEIGHTED[name])(1e4 * logits, None)
  assert np.isfinite(loss)
  assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_of_another_length_are_refused(logits, name):
  with pytest.raises(InputError, match=r"weights have shape \(6,\)"):
    WEIGHTED[name](logits, np.ones(6))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: losses.soft_cross_entropy(np.ones((3, 4)), np.ones((3, 5))),
      r"\(3, 4\) and targets \(3, 5\)",
    ),
    (
      lambda: losses.smoothed_cross_entropy(np.ones((3, 4)), np.zeros(4, int)),
      r"\(3, 4\) and labels \(4,\)",
    ),
    (lambda: losses.smoothed_cross_entropy(np.ones((3, 4)), np.zeros(3)), "expected integers"),
    (
      lambda: losses.smoothed_cross_entropy(np.ones((3, 4)), np.zeros(3, int), smoothing=1.0),
      "smoothing is 1.0",
    ),
    (
      lambda: losses.distillation_loss(np.ones((3, 4)), np.ones((2, 4)), temperature=1.0),
      r"\(3, 4\) and student_logits \(2, 4\)",
    ),
    (
      lambda: losses.distillation_loss(np.ones((3, 4)), np.ones((3, 4)), temperature=0.0),
      "temperature is 0.0",
    ),
    (lambda: losses.quantisation_loss(np.ones(3)), r"shape \(3,\)"),
    (lambda: losses.bit_balance_loss(np.ones((3, 0))), r"shape \(3, 0\)"),
    (
      lambda: losses.nt_xent(np.ones((3, 4)), np.ones((3, 5)), temperature=0.3),
      r"\(3, 4\) and \(3, 5\)",
    ),
    (lambda: losses.nt_xent(np.ones((0, 4)), np.ones((0, 4)), temperature=0.3), "m >= 1"),
    (lambda: losses.nt_xent(np.ones((3, 4)), np.ones((3, 4)), temperature=-1), "temperature is -1"),
  ],
)
def test_bad_input_is_refused_in_one_line(call, message):
  with pytest.raises(InputError, match=message) as error:
    call()
  assert "\n" not in str(error.value)
