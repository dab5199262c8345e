"""The highly interrelated loss: softmax losses that make it harder to score with the own class."""

import math

import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.losses.labels import label_cross_entropy, label_targets
from udh_jax.numerics import at_least_float32, matmul
from udh_jax.similarity.cosine import cosines


def annealing_weight(
  step: jax.Array | float, *, start: float = 1000.0, rate: float = 0.12, least: float = 5.0
) -> jax.Array:
  """Weight of the plain logit beside the one with a margin: max(least, start / (1 + rate t)).

  Args:
    step: t, from 0 on.
    start: Weight at step 0.
    rate: How fast it falls.
    least: What it falls to.

  Returns:
    float32 scalar.

  References:
    Liu et al., L-Softmax, ICML 2016, section 5.1, and SphereFace, CVPR 2017; the values are those
    of the SphereFace authors.
  """
  return jnp.maximum(least, start / (1 + rate * jnp.asarray(step, jnp.float32)))


def _psi(cosine, margin):
  """(-1)^k cos(m theta) - 2 k for theta in [k pi / m, (k + 1) pi / m].

  cos(m theta) is a polynomial of the cosine, whose slope is finite at theta = 0 and pi too.
  """
  before, power = jnp.ones_like(cosine), cosine  # Chebyshev's recurrence
  for _ in range(margin - 1):
    before, power = power, 2 * cosine * power - before
  sector = sum(
    (cosine < math.cos(number * math.pi / margin)).astype(cosine.dtype)
    for number in range(1, margin)
  )
  sector = jnp.zeros_like(cosine) + sector
  sign = 1 - 2 * jnp.mod(sector, 2)
  return sign * power - 2 * sector


def _added_angle(cosine, margin):
  """cos(theta + m); where theta is above pi - m and that would rise, cos(theta) - m sin(m)."""
  # The lower bound keeps the slope of the root finite.
  sine = jnp.sqrt(jnp.maximum((1 - cosine) * (1 + cosine), 1e-12))
  turned = cosine * math.cos(margin) - sine * math.sin(margin)
  return jnp.where(cosine >= -math.cos(margin), turned, cosine - margin * math.sin(margin))


def _scale(outputs, classes, scale, margin, annealing):
  del margin, annealing
  plain = matmul(outputs, classes.T)
  return plain, plain - (1 - 1 / scale) * jnp.abs(plain)


def _softmax(outputs, classes, scale, margin, annealing):
  del scale, margin, annealing
  plain = matmul(outputs, classes.T)
  return plain, plain


def _l_softmax(outputs, classes, scale, margin, annealing):
  del scale
  plain = matmul(outputs, classes.T)
  cosine = cosines(outputs, classes)
  lengths = _lengths(outputs)[:, None] * _lengths(classes)
  return plain, plain + lengths * (_psi(cosine, int(margin)) - cosine) / (1 + annealing)


def _a_softmax(outputs, classes, scale, margin, annealing):
  del scale
  cosine = cosines(outputs, classes)
  lengths = _lengths(outputs)[:, None]
  own = cosine + (_psi(cosine, int(margin)) - cosine) / (1 + annealing)
  return lengths * cosine, lengths * own


def _cosface(outputs, classes, scale, margin, annealing):
  del annealing
  cosine = cosines(outputs, classes)
  return scale * cosine, scale * (cosine - margin)


def _arcface(outputs, classes, scale, margin, annealing):
  del annealing
  cosine = cosines(outputs, classes)
  return scale * cosine, scale * _added_angle(cosine, margin)


# (outputs, class weights, scale, margin, annealing) -> logits of other classes, of own classes.
KINDS = {
  "scale": _scale,
  "l_softmax": _l_softmax,
  "a_softmax": _a_softmax,
  "cosface": _cosface,
  "arcface": _arcface,
  "softmax": _softmax,
}
WHOLE_MARGINS = ("l_softmax", "a_softmax")


def margin_logits(
  outputs: jax.Array,
  class_weights: jax.Array,
  targets: jax.Array,
  *,
  kind: str,
  scale: float = 1.0,
  margin: float = 0.0,
  annealing: jax.Array | float = 0.0,
) -> jax.Array:
  """Logits whose own class, y, is held to more than the others.

  With x an output, W_j the weights of class j and theta_j the angle between them; for j != y first:

  - ``softmax``: W_j x, and the same for y.
  - ``scale``: W_j x; W_y x - (1 - 1 / s) |W_y x|. A positive target logit is divided by s.
  - ``l_softmax``: |W_j| |x| cos(theta_j); |W_y| |x| psi(theta_y), where psi(theta) = (-1)^k
    cos(m theta) - 2 k in the k-th of m equal sectors.
  - ``a_softmax``: |x| cos(theta_j); |x| psi(theta_y).
  - ``cosface``: s cos(theta_j); s (cos(theta_y) - m).
  - ``arcface``: s cos(theta_j); s cos(theta_y + m), and s (cos(theta_y) - m sin(m)) where theta_y
    is above pi - m.

  With ``annealing`` l, the target logit of the two with psi is (l plain + the one above) / (1 + l).
  A row with several classes has the target logit in each of them.

  Args:
    outputs: x. Array of shape ``[m, c]``. A row of zeros has cosine 0 with everything.
    class_weights: W. Array of shape ``[K, c]``.
    targets: Bool array of shape ``[m, K]``, see `udh_jax.losses.labels.label_targets`.
    kind: One of `KINDS`.
    scale: s, 1 or more for ``scale`` and above 0 for ``cosface`` and ``arcface``. Static.
    margin: m: a whole number from 1 on for ``l_softmax`` and ``a_softmax``, at least 0 for
      ``cosface``, in [0, pi) for ``arcface``. Static.
    annealing: l, at least 0, see `annealing_weight`. Scalar.

  Returns:
    float32 array of shape ``[m, K]`` (float64 stays). Its gradients are finite everywhere, but for
    rows of zeros in float16, whose numbers end before.

  Raises:
    InputError: If the shapes disagree, or an option is unknown or out of range.

  References:
    DHIH: that the loss changes the model's sensitivity to the weight matrix is the paper's
    (its abstract); the formula is not public, and ``scale`` is our own reading of it. Liu et al.,
    L-Softmax, ICML 2016, equation 6; Liu et al., SphereFace, CVPR 2017, equation 7; Wang et al.,
    CosFace, CVPR 2018, equation 4; Deng et al., ArcFace, CVPR 2019, equation 3, and beyond pi - m
    its authors' code. Several classes a row are our own, after OrthoHash.
  """
  require(
    kind in KINDS, f"loss kind {kind!r} is unknown; choose one of {', '.join(sorted(KINDS))}."
  )
  outputs, class_weights = at_least_float32(outputs), at_least_float32(class_weights)
  require(
    outputs.ndim == 2
    and class_weights.ndim == 2
    and outputs.shape[1] == class_weights.shape[1]
    and targets.shape == (outputs.shape[0], class_weights.shape[0]),
    f"margin_logits: outputs, class weights and targets have shapes {outputs.shape}, "
    f"{class_weights.shape} and {targets.shape}, expected [m, c], [K, c] and [m, K].",
  )
  require_margin(kind, scale, margin, name="margin_logits: ")
  plain, own = KINDS[kind](outputs, class_weights, scale, margin, annealing)
  return jnp.where(targets, own, plain)


def require_margin(kind: str, scale: float, margin: float, *, name: str = "") -> None:
  """Refuses a scale or a margin that a loss cannot have.

  Args:
    kind: One of `KINDS`.
    scale: See `margin_logits`.
    margin: Likewise.
    name: What stands before "scale" and "margin" in the message.

  Raises:
    InputError: If one is out of range.
  """
  least = 1 if kind == "scale" else 0
  require(
    scale >= 1 or (scale > 0 and not least),
    f"{name}scale is {scale}, expected {'1 or more' if least else 'above 0'}.",
  )
  if kind in WHOLE_MARGINS:
    require(
      margin >= 1 and margin == int(margin),
      f"{name}margin is {margin}, expected a whole number from 1 on for {kind}.",
    )
  else:
    require(0 <= margin < math.pi, f"{name}margin is {margin}, expected 0 to less than pi.")


def highly_interrelated_loss(
  outputs: jax.Array,
  class_weights: jax.Array,
  labels: jax.Array,
  *,
  kind: str,
  scale: float = 1.0,
  margin: float = 0.0,
  annealing: jax.Array | float = 0.0,
  weights: jax.Array | None = None,
) -> jax.Array:
  """Cross-entropy of `margin_logits` against the labels.

  Args:
    outputs: Relaxed codes. Array of shape ``[m, c]``.
    class_weights: Array of shape ``[K, c]``.
    labels: One class or several a row, see `udh_jax.losses.labels.label_targets`; those of several
      have the same share of the target each.
    kind: As of `margin_logits`.
    scale: The same.
    margin: The same.
    annealing: The same.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Weighted mean over the rows that have a class, float32 scalar (float64 stays).

  Raises:
    InputError: As `margin_logits` and `udh_jax.losses.labels.label_targets`.
  """
  targets = label_targets(labels, class_weights.shape[0])
  logits = margin_logits(
    outputs,
    class_weights,
    targets,
    kind=kind,
    scale=scale,
    margin=margin,
    annealing=annealing,
  )
  return label_cross_entropy(logits, targets, weights=weights)


def _lengths(rows):
  """Lengths of rows, with a finite gradient at 0."""
  return jnp.sqrt(jnp.maximum(jnp.sum(rows**2, axis=1), 1e-12))
