import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.losses.ucch import memory_contrast, ranking_loss, remembered


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def batch(rng):
  return unit(rng.normal(size=(6, 5))), unit(rng.normal(size=(6, 5)))


def softmax_share(scores):
  """-log of the first one's share, in float64."""
  return -np.log(np.exp(scores[0]) / np.exp(scores).sum())


def test_contrast_is_the_cross_entropy_of_the_own_code(batch, rng):
  u, _ = batch
  own, others = (np.where(rng.random((n, 5)) < 0.5, -1.0, 1.0) for n in (6, 9))
  scale = 0.9 * np.sqrt(5)
  losses = [
    softmax_share(np.concatenate([[u[i] @ own[i]], others @ u[i]]) / scale) for i in range(6)
  ]
  found = jax.jit(lambda *x: memory_contrast(*x, temperature=0.9))(u, own, others)
  np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)
  weights = np.array([1, 0, 2, 0, 0, 1.0])
  found = memory_contrast(u, own, others, temperature=0.9, weights=weights)
  np.testing.assert_allclose(found, np.average(losses, weights=weights), rtol=1e-5)


def test_codes_that_are_left_out_do_not_count(batch, rng):
  u, _ = batch
  codes = np.where(rng.random((6, 5)) < 0.5, -1.0, 1.0)
  left_out = np.eye(6, dtype=bool)
  left_out[:, 4] = True
  found = memory_contrast(u, codes, codes, temperature=0.5, left_out=left_out)
  losses = [
    softmax_share(codes[[i, *(j for j in range(6) if j not in (i, 4))]] @ u[i] / (0.5 * 5**0.5))
    for i in range(6)
  ]
  np.testing.assert_allclose(found, np.mean(losses), rtol=1e-5)


@pytest.mark.parametrize(("margin", "shift"), [(0.2, 0.1), (0.0, 1.0), (3.0, 1.0), (0.2, 0.0)])
def test_ranking_is_the_papers_loss(batch, margin, shift):
  u, v = batch
  total = 0.0
  for a, b in ((u, v), (v, u)):
    for i in range(6):
      scores = [float(a[i] @ other) for other in b]
      own = scores[i]
      moved = [s if s >= own - margin else s - shift for s in scores]
      total += (np.log(np.sum(np.exp(moved))) - own + margin) / 6
  found = jax.jit(lambda a, b: ranking_loss(a, b, margin=margin, shift=shift))(u, v)
  np.testing.assert_allclose(found, total, rtol=1e-5)


def test_another_copy_of_a_pair_is_not_ranked_below_it(batch):
  u, v = batch
  rows = np.array([3, 5, 3, 0, 3, 5])
  total = 0.0
  for a, b in ((u, v), (v, u)):
    for i in range(6):
      own = float(a[i] @ b[i])
      scores = [float(a[i] @ b[j]) for j in range(6) if j == i or rows[j] != rows[i]]
      moved = [s if s >= own - 0.2 else s - 0.3 for s in scores]
      total += (np.log(np.sum(np.exp(moved))) - own + 0.2) / 6
  options = {"margin": 0.2, "shift": 0.3}
  found = jax.jit(lambda *x: ranking_loss(*x, **options, rows=rows))(u, v)
  np.testing.assert_allclose(found, total, rtol=1e-5)
  alone = ranking_loss(u, v, **options)
  assert ranking_loss(u, v, **options, rows=np.arange(6)[::-1]) == alone > 1.1 * found


def test_rows_of_weight_zero_change_nothing(batch, rng):
  more = [np.concatenate([x, unit(rng.normal(size=(3, 5)))]) for x in batch]
  weights = np.array([1.0] * 6 + [0.0] * 3)
  options = {"margin": 0.2, "shift": 0.3}
  np.testing.assert_allclose(
    ranking_loss(*more, **options, weights=weights), ranking_loss(*batch, **options), rtol=1e-5
  )
  zeros = jnp.zeros((3, 5))
  gradient = jax.grad(lambda x: ranking_loss(x, x, **options, weights=jnp.zeros(3)))(zeros)
  assert np.isfinite(gradient).all()


def test_a_memory_follows_the_outputs(batch, rng):
  u, v = batch
  memory = unit(rng.normal(size=(6, 5)))
  expected = unit(0.4 * memory + 0.6 * unit((u + v) / 2))
  np.testing.assert_allclose(remembered(memory, u, v, momentum=0.4), expected, atol=1e-6)
  np.testing.assert_allclose(remembered(memory, u, v, momentum=1.0), memory, atol=1e-6)


def test_what_cannot_be_is_refused(batch):
  u, v = batch
  with pytest.raises(InputError, match=r"shapes \(6, 5\) and \(5, 5\)"):
    ranking_loss(u, v[:5], margin=0.1, shift=0.1)
  with pytest.raises(InputError, match=r"rows have shape \(5,\), expected \[6\]"):
    ranking_loss(u, v, margin=0.1, shift=0.1, rows=np.arange(5))
  with pytest.raises(InputError, match="margin is -1"):
    ranking_loss(u, v, margin=-1, shift=0.1)
  with pytest.raises(InputError, match=r"other codes have the shape \(6, 4\), expected \[k, 5\]"):
    memory_contrast(u, v, v[:, :4], temperature=1)
  with pytest.raises(InputError, match="temperature is 0"):
    memory_contrast(u, v, v, temperature=0)
