"""Losses that are weighted means: what weights do in all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from udh_jax import losses
from udh_jax.errors import InputError
from udh_jax.losses import asymmetric, cross_modal, ucch
from udh_jax.losses.reduction import weighted_mean


@pytest.fixture
def logits(rng):
  return rng.normal(size=(7, 5)).astype(np.float32) * 3


@pytest.fixture
def weights():
  return np.array([1, 0, 2, 0.5, 0, 1, 3], np.float32)


LABELS = np.array([0, 1, 2, 3, 4, 0, 1])


WEIGHTED = {
  "soft_cross_entropy": lambda x, w: losses.soft_cross_entropy(
    x, jnp.full(x.shape, 0.2, jnp.float32), weights=w
  ),
  "smoothed_cross_entropy": lambda x, w: losses.smoothed_cross_entropy(x, LABELS, weights=w),
  "distillation_loss": lambda x, w: losses.distillation_loss(
    jnp.full(x.shape, 0.2, jnp.float32), x, temperature=2.0, weights=w
  ),
  "quantisation_loss": lambda x, w: losses.quantisation_loss(x, weights=w),
  "bit_balance_loss": lambda x, w: losses.bit_balance_loss(x, weights=w),
}


OF_PAIRS = {
  "nt_xent": lambda x, w: losses.nt_xent(x, x, temperature=0.3, weights=w),
  "ranking_loss": lambda x, w: ucch.ranking_loss(x, x, margin=0.2, shift=0.5, weights=w),
  "joint_semantics": lambda x, w: cross_modal.joint_semantics(
    x, x, beta=0.5, eta=0.5, mu=1.5, weights=w
  ),
  "reconstruction_loss": lambda x, w: cross_modal.reconstruction_loss(x, x, x @ x.T, weights=w),
  "network_loss": lambda x, w: asymmetric.network_loss(x, x, x, x.T @ x, w, gamma=1.0, scale=2.0),
}


@pytest.mark.parametrize("name", WEIGHTED | OF_PAIRS)
def test_weights_are_one_a_row_in_any_kind_of_array(logits, weights, name):
  function = (WEIGHTED | OF_PAIRS)[name]
  with pytest.raises(InputError, match=r"weights have shape \(1,\), the batch has 7 rows"):
    function(logits, weights[:1])
  as_list = function(logits, weights.tolist())
  np.testing.assert_allclose(as_list, function(logits, weights), rtol=1e-5, atol=1e-5)


def test_the_mean_of_the_networks_loss_does_not_depend_on_the_scale_of_weights(logits, weights):
  loss = OF_PAIRS["network_loss"]
  np.testing.assert_allclose(loss(logits, 0.01 * weights), loss(logits, weights), rtol=1e-5)


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
