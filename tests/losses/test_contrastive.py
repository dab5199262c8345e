import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax import losses
from udh_jax.errors import InputError
from udh_jax.losses.contrastive import bernoulli_divergence, straight_through_sign


def plain_nt_xent(first, second, temperature, rows=None):
  views = [*first, *second]
  m, total = len(first), 0.0
  rows = [*rows, *rows] if rows is not None else [*range(m)] * 2
  for i, view in enumerate(views):
    scores = {
      j: float(view @ other / np.linalg.norm(view) / np.linalg.norm(other)) / temperature
      for j, other in enumerate(views)
      if j != i and (rows[j] != rows[i] or abs(j - i) == m)
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


def test_another_copy_of_an_image_is_not_its_negative(rng):
  first, second = rng.normal(size=(2, 8, 6))
  rows = np.array([4, 7, 4, 0, 7, 4, 3, -1])
  weights = np.array([1.0] * 7 + [0])
  first[2], second[5] = first[0], second[0]  # as near as can be
  value, gradient = jax.jit(
    jax.value_and_grad(
      lambda views: losses.nt_xent(*views, temperature=0.3, weights=weights, rows=rows)
    )
  )(jnp.stack([first, second]))
  expected = plain_nt_xent(first[:7], second[:7], 0.3, rows[:7])
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  assert expected < 0.95 * plain_nt_xent(first[:7], second[:7], 0.3)
  assert np.isfinite(gradient).all()


def test_where_all_images_differ_their_numbers_change_nothing(rng):
  first, second = rng.normal(size=(2, 7, 6))
  for weights in (None, np.array([1, 0, 1, 1, 0, 1, 1.0])):
    alone = losses.nt_xent(first, second, temperature=0.3, weights=weights)
    numbered = losses.nt_xent(
      first, second, temperature=0.3, weights=weights, rows=rng.permutation(7)
    )
    assert numbered == alone


def test_a_batch_of_one_image_alone_has_nothing_to_differ_from(rng):
  views = jnp.asarray(rng.normal(size=(2, 4, 6)))
  value, gradient = jax.value_and_grad(
    lambda x: losses.nt_xent(*x, temperature=0.3, rows=np.full(4, 2))
  )(views)
  assert abs(value) < 1e-5
  assert np.isfinite(gradient).all()


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


def test_divergence_is_both_ways_added_over_bits(rng):
  p, q = rng.uniform(0.01, 0.99, (2, 7, 5))
  one = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
  other = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
  rows = (one + other).sum(axis=1) / 2
  np.testing.assert_allclose(bernoulli_divergence(p, q), rows.mean(), rtol=1e-4)
  weights = np.array([1, 0, 1, 1, 0, 0, 1.0])
  expected = (rows * weights).sum() / weights.sum()
  np.testing.assert_allclose(bernoulli_divergence(p, q, weights=weights), expected, rtol=1e-4)


def test_certain_bits_have_a_finite_divergence_and_gradient():
  p, q = jnp.array([[0.0, 1.0]]), jnp.array([[1.0, 1.0]])
  value, gradient = jax.value_and_grad(bernoulli_divergence)(p, q)
  assert np.isfinite(value)
  assert np.isfinite(gradient).all()
  assert bernoulli_divergence(p, p) == 0


def test_straight_through_is_a_sign_with_the_gradient_of_its_argument():
  u = jnp.array([-0.3, -0.0, 0.0, 0.7])
  np.testing.assert_array_equal(straight_through_sign(u), [-1, 1, 1, 1])
  gradient = jax.grad(lambda u: (straight_through_sign(u) * jnp.arange(4.0)).sum())(u)
  np.testing.assert_array_equal(gradient, np.arange(4.0))


def test_shapes_that_differ_are_refused():
  with pytest.raises(InputError, match=r"rows have shape \(3,\), expected \[2\]"):
    losses.nt_xent(np.ones((2, 3)), np.ones((2, 3)), temperature=1, rows=np.arange(3))
  with pytest.raises(InputError, match=r"\(2, 3\) and \(3, 2\)"):
    bernoulli_divergence(np.ones((2, 3)), np.ones((3, 2)))


def test_images_of_weight_zero_are_no_anchors_and_no_others(rng):
  first, second = rng.normal(size=(2, 7, 6))
  weights = np.array([1, 0, 1, 1, 0, 1, 1.0])
  kept = weights > 0
  value, gradient = jax.value_and_grad(
    lambda views: losses.nt_xent(*views, temperature=0.3, weights=weights)
  )(jnp.stack([first, second]))
  expected = plain_nt_xent(first[kept], second[kept], 0.3)
  np.testing.assert_allclose(value, expected, rtol=1e-4)
  np.testing.assert_array_equal(gradient[:, ~kept], 0)


def test_the_temperature_may_be_learned(rng):
  first, second = (jnp.asarray(rng.normal(size=(5, 4)), jnp.float32) for _ in range(2))

  def loss(temperature):
    return losses.nt_xent(first, second, temperature=temperature)

  np.testing.assert_allclose(jax.jit(loss)(0.4), loss(0.4), rtol=1e-5)
  assert np.isfinite(jax.jit(jax.grad(loss))(0.4))
