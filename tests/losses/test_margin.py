"""The highly interrelated loss and its competing losses against plain loops in numpy's float64."""

import jax
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.losses.centres import central_similarity_loss, greedy_penalty, majority_centres
from udh_jax.losses.labels import label_targets
from udh_jax.losses.margin import KINDS, annealing_weight, highly_interrelated_loss, margin_logits

OPTIONS = {
  "scale": {"scale": 2.0},
  "l_softmax": {"margin": 2, "annealing": 3.0},
  "a_softmax": {"margin": 4, "annealing": 5.0},
  "cosface": {"scale": 16.0, "margin": 0.2},
  "arcface": {"scale": 16.0, "margin": 0.2},
  "softmax": {},
}


def psi(theta, m):
  """By sectors: the k with theta in [k pi / m, (k + 1) pi / m]."""
  k = min(int(theta * m / np.pi), m - 1)
  return (-1) ** k * np.cos(m * theta) - 2 * k


def plain_logit(kind, x, w, own, scale=1.0, margin=0.0, annealing=0.0):
  product, length = float(x @ w), np.linalg.norm(x)
  theta = np.arccos(np.clip(product / length / np.linalg.norm(w), -1, 1))
  if kind == "softmax" or (kind in ("scale", "l_softmax") and not own):
    return product
  if kind == "scale":
    return product - (1 - 1 / scale) * abs(product)
  if kind == "l_softmax":
    target = np.linalg.norm(w) * length * psi(theta, margin)
    return (annealing * product + target) / (1 + annealing)
  if kind == "a_softmax":
    plain = length * np.cos(theta)
    target = length * psi(theta, margin)
    return (annealing * plain + target) / (1 + annealing) if own else plain
  if not own:
    return scale * np.cos(theta)
  if kind == "cosface":
    return scale * (np.cos(theta) - margin)
  if theta > np.pi - margin:
    return scale * (np.cos(theta) - margin * np.sin(margin))
  return scale * np.cos(theta + margin)


def plain_loss(kind, outputs, class_weights, classes, weights=None, **options):
  """Each row by itself; ``classes`` are lists, and rows without a class are left out."""
  total = count = 0.0
  for i, (x, own) in enumerate(zip(outputs, classes, strict=True)):
    weight = 1.0 if weights is None else weights[i]
    if not own:
      continue
    logits = [plain_logit(kind, x, w, j in own, **options) for j, w in enumerate(class_weights)]
    shift = max(logits)
    normaliser = shift + np.log(sum(np.exp(z - shift) for z in logits))
    total += weight * sum(normaliser - logits[j] for j in own) / len(own)
    count += weight
  return total / count


@pytest.fixture
def outputs(rng):
  return np.tanh(rng.normal(size=(9, 6))).astype(np.float32)


@pytest.fixture
def class_weights(rng):
  return rng.normal(size=(5, 6)).astype(np.float32)


LABELS = np.array([0, 3, 1, 4, 2, 2, 0, 1, 3], np.int32)


SEVERAL = [[0], [1, 3], [], [0, 2, 4], [4], [1], [2, 3], [0, 1, 2, 3, 4], [3]]


WEIGHTS = np.array([1, 0, 2, 0.5, 1, 0, 3, 1, 1], np.float32)


def multi_hot(lists, k=5):
  found = np.zeros((len(lists), k), bool)
  for row, classes in enumerate(lists):
    found[row, classes] = True
  return found


@pytest.mark.parametrize("kind", KINDS)
def test_each_member_agrees_with_its_definition(outputs, class_weights, kind):
  loss = highly_interrelated_loss(outputs, class_weights, LABELS, kind=kind, **OPTIONS[kind])
  expected = plain_loss(kind, outputs, class_weights, [[y] for y in LABELS], **OPTIONS[kind])
  np.testing.assert_allclose(loss, expected, rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_several_labels_share_the_target_and_all_have_the_margin(outputs, class_weights, kind):
  labels = multi_hot(SEVERAL)
  for weights in (None, WEIGHTS):
    loss = highly_interrelated_loss(
      outputs, class_weights, labels, kind=kind, weights=weights, **OPTIONS[kind]
    )
    expected = plain_loss(kind, outputs, class_weights, SEVERAL, weights, **OPTIONS[kind])
    np.testing.assert_allclose(loss, expected, rtol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_one_label_is_the_same_in_both_forms(outputs, class_weights, kind):
  forms = (LABELS, multi_hot([[y] for y in LABELS]))
  first, second = (
    highly_interrelated_loss(outputs, class_weights, labels, kind=kind, **OPTIONS[kind])
    for labels in forms
  )
  assert first == second


def softmax_loss(logits, labels):
  logits = logits - logits.max(axis=1, keepdims=True)
  return -(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))[
    np.arange(len(labels)), labels
  ].mean()


@pytest.mark.parametrize(
  ("kind", "options"),
  [
    ("scale", {"scale": 1.0}),
    ("l_softmax", {"margin": 1}),
    ("l_softmax", {"margin": 3, "annealing": 1e9}),
    ("softmax", {}),
  ],
)
def test_without_a_margin_it_is_the_softmax_loss(outputs, class_weights, kind, options):
  loss = highly_interrelated_loss(outputs, class_weights, LABELS, kind=kind, **options)
  np.testing.assert_allclose(loss, softmax_loss(outputs @ class_weights.T, LABELS), rtol=1e-5)


@pytest.mark.parametrize(
  ("kind", "options"),
  [
    ("a_softmax", {"margin": 1}),
    ("cosface", {"scale": 7.0, "margin": 0.0}),
    ("arcface", {"scale": 7.0, "margin": 0.0}),
  ],
)
def test_without_a_margin_the_others_are_the_softmax_loss_of_normalised_logits(
  outputs, class_weights, kind, options
):
  unit = class_weights / np.linalg.norm(class_weights, axis=1, keepdims=True)
  logits = outputs @ unit.T
  if kind != "a_softmax":
    logits = 7 * logits / np.linalg.norm(outputs, axis=1, keepdims=True)
  loss = highly_interrelated_loss(outputs, class_weights, LABELS, kind=kind, **options)
  np.testing.assert_allclose(loss, softmax_loss(logits, LABELS), rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m", [2, 3, 4])
def test_gradients_are_finite_at_the_ends_of_the_angle_and_at_zero(kind, m):
  options = {**OPTIONS[kind], "annealing": 0.0}
  if kind in ("l_softmax", "a_softmax"):
    options["margin"] = m
  # Angles of 0 and pi, exactly and up to rounding, and none.
  ends = [[2, 0, 0], [-2, 0, 0], [1, 2, -1], [-1, -2, 1]]
  x = np.array([*ends, [0, 0, 0], [2, 1, 0], [1e-9, 0, 0]], np.float32)
  w = np.array([[4, 0, 0], [2, 4, -2], [0, 0, 0]], np.float32)
  for labels in np.repeat(np.arange(3, dtype=np.int32)[:, None], len(x), axis=1):
    value, gradients = jax.value_and_grad(
      lambda x, w, labels=labels: highly_interrelated_loss(x, w, labels, kind=kind, **options),
      argnums=(0, 1),
    )(x, w)
    assert np.isfinite(value)
    assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "softmax"])
def test_no_target_logit_is_above_the_plain_one_and_each_falls_with_the_angle(kind):
  theta = np.linspace(0, np.pi, 200)
  x = np.stack([np.cos(theta), np.sin(theta)], axis=1).astype(np.float32)
  w = np.array([[1.0, 0.0]], np.float32)
  options = {**OPTIONS[kind], "annealing": 0.0}
  own = margin_logits(x, w, np.ones((200, 1), bool), kind=kind, **options)[:, 0]
  plain = margin_logits(x, w, np.zeros((200, 1), bool), kind=kind, **options)[:, 0]
  assert (own <= plain + 1e-5).all()
  assert (np.diff(own) <= 1e-4).all()


def test_a_positive_target_logit_is_divided_by_s_and_a_negative_one_not_rewarded():
  x, w = np.array([[2.0], [-2.0]], np.float32), np.ones((1, 1), np.float32)
  own = margin_logits(x, w, np.ones((2, 1), bool), kind="scale", scale=4.0)
  np.testing.assert_allclose(own[:, 0], [0.5, -3.5])


def test_the_annealing_weight_falls_to_its_least_value():
  assert annealing_weight(0) == 1000
  np.testing.assert_allclose(annealing_weight(50), 1000 / 7, rtol=1e-6)
  assert annealing_weight(10**6) == 5


def test_jit_takes_traced_labels_and_steps(outputs, class_weights):
  def loss(labels, step):
    return highly_interrelated_loss(
      outputs,
      class_weights,
      labels,
      kind="a_softmax",
      margin=4,
      annealing=annealing_weight(step),
    )

  np.testing.assert_allclose(
    jax.jit(loss)(LABELS, 40),
    plain_loss(
      "a_softmax",
      outputs,
      class_weights,
      [[y] for y in LABELS],
      margin=4,
      annealing=1000 / (1 + 0.12 * 40),
    ),
    rtol=2e-5,
  )


def test_padded_rows_and_rows_without_a_label_have_no_say(outputs, class_weights):
  labels, spoilt = LABELS.copy(), outputs.copy()
  labels[[1, 5]] = -1
  spoilt[[1, 5]] = 1e6
  some = np.delete(np.arange(9), [1, 5])
  value, gradient = jax.value_and_grad(
    lambda x: highly_interrelated_loss(x, class_weights, labels, kind="cosface", scale=4.0)
  )(spoilt)
  expected = highly_interrelated_loss(
    outputs[some], class_weights, LABELS[some], kind="cosface", scale=4.0
  )
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_array_equal(gradient[np.array([1, 5])], 0)


ONE, TWO = np.ones((2, 3)), np.ones((4, 3))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: label_targets(np.array([0, 4]), 4), "run from 0 to 4, expected 0 to 3"),
    (lambda: label_targets(np.array([-2, 1]), 4), "run from -2 to 1"),
    (lambda: label_targets(np.zeros((2, 4), np.int32), 4), r"int32 of shape \(2, 4\)"),
    (lambda: label_targets(np.zeros((2, 3), bool), 4), r"shape \(2, 3\).*K = 4"),
    (lambda: label_targets(np.zeros(2, bool), 4), "bool of shape"),
    (lambda: label_targets(np.zeros(2, np.float32), 4), "float32 of shape"),
    (lambda: highly_interrelated_loss(ONE, TWO, np.array([0, 1]), kind="magic"), "'magic'"),
    (
      lambda: highly_interrelated_loss(ONE, np.ones((4, 2)), np.array([0, 1]), kind="softmax"),
      r"\(2, 3\), \(4, 2\)",
    ),
    (
      lambda: highly_interrelated_loss(ONE, TWO, np.array([0, 1]), kind="scale", scale=0.5),
      "scale is 0.5, expected 1 or more",
    ),
    (
      lambda: highly_interrelated_loss(ONE, TWO, np.array([0, 1]), kind="cosface", scale=0.0),
      "scale is 0.0, expected above 0",
    ),
    (
      lambda: highly_interrelated_loss(ONE, TWO, np.array([0, 1]), kind="l_softmax", margin=1.5),
      "margin is 1.5, expected a whole number",
    ),
    (
      lambda: highly_interrelated_loss(ONE, TWO, np.array([0, 1]), kind="arcface", margin=-0.1),
      "margin is -0.1",
    ),
    (
      lambda: majority_centres(np.ones((4, 3)), np.array([0, 1]), np.ones(3)),
      "expected multi-hot bool",
    ),
    (lambda: central_similarity_loss(ONE, TWO), r"\(2, 3\) and centres \(4, 3\)"),
    (lambda: greedy_penalty(np.ones(3)), r"shape \(3,\)"),
  ],
)
def test_bad_input_is_refused_in_one_line(call, message):
  with pytest.raises(InputError, match=message) as error:
    call()
  assert "\n" not in str(error.value)
