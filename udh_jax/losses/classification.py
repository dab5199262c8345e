"""Cross-entropies: against soft targets, against (pseudo) labels, against a teacher."""

import jax
import jax.numpy as jnp
import optax
from jax import lax

from udh_jax.errors import is_traced, require, require_labels, require_positive
from udh_jax.losses.reduction import row_weights, weighted_mean
from udh_jax.numerics import at_least_float32


def soft_cross_entropy(
  logits: jax.Array, targets: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
  """Cross-entropy against a distribution a row: mean_i of -sum_j targets_ij log softmax(logits)_ij.

  Args:
    logits: Array of shape ``[m, K]``.
    targets: Distributions, rows that sum to 1. Array of shape ``[m, K]``.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Weighted mean over the batch, float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shapes disagree.

  References:
    The textbook definition.
  """
  logits, targets = at_least_float32(logits), at_least_float32(targets)
  require(
    logits.ndim == 2 and logits.shape == targets.shape,
    f"soft_cross_entropy: logits have shape {logits.shape} and targets {targets.shape}, expected "
    "both [m, K].",
  )
  return weighted_mean(optax.softmax_cross_entropy(logits, targets), weights)


def smoothed_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  *,
  smoothing: float = 0.0,
  weights: jax.Array | None = None,
) -> jax.Array:
  """Cross-entropy against integer labels, with label smoothing.

  The target is (1 - smoothing) on the label plus smoothing / K on every class.

  Args:
    logits: Array of shape ``[m, K]``.
    labels: Class or pseudo label, in 0..K-1, or -1 for a row without one, which is left out.
      Integer array of shape ``[m]``.
    smoothing: In [0, 1). It may be traced.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Weighted mean over the batch, float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shapes disagree, the labels are not integers, ``smoothing`` is outside [0, 1)
      or, where values are known, a label is not in -1..K-1.

  References:
    Szegedy et al., Rethinking the Inception architecture, CVPR 2016, section 7.
  """
  logits, labels = at_least_float32(logits), jnp.asarray(labels)
  require(
    logits.ndim == 2 and labels.shape == logits.shape[:1],
    f"smoothed_cross_entropy: logits have shape {logits.shape} and labels {labels.shape}, expected "
    "[m, K] and [m].",
  )
  require(
    jnp.issubdtype(labels.dtype, jnp.integer),
    f"smoothed_cross_entropy: labels are {labels.dtype}, expected integers.",
  )
  require(
    is_traced(smoothing) or 0 <= smoothing < 1,
    f"smoothed_cross_entropy: smoothing is {smoothing}, expected a number in [0, 1).",
  )
  require_labels("smoothed_cross_entropy", labels, logits.shape[1])
  targets = jax.nn.one_hot(labels.astype(jnp.int32), logits.shape[1], dtype=logits.dtype)
  targets = optax.smooth_labels(targets, smoothing)
  weights = (labels >= 0) * row_weights(weights, len(labels), logits.dtype)
  return soft_cross_entropy(logits, targets, weights=weights)


def distillation_loss(
  teacher_probabilities: jax.Array,
  student_logits: jax.Array,
  *,
  temperature: float,
  weights: jax.Array | None = None,
) -> jax.Array:
  """Divergence of the student's softened prediction from the teacher's soft labels.

  L = tau^2 mean_i KL(p_i || softmax(z_i / tau)). The factor tau^2 keeps the size of the gradient
  independent of the temperature. No gradient flows to the teacher.

  Args:
    teacher_probabilities: Soft labels p, already softened by the teacher's temperature; rows sum to
      1, zeros allowed. Array of shape ``[m, K]``.
    student_logits: z. Array of shape ``[m, K]``.
    temperature: tau > 0 of the student's softmax. It may be traced.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Weighted mean over the batch, float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shapes disagree or ``temperature`` is not positive.

  References:
    Hinton et al., Distilling the knowledge in a neural network, 2015, section 2. Its use for
    UDH-ECC is our own: the paper's abstract gives the structure only.
  """
  teacher = lax.stop_gradient(at_least_float32(teacher_probabilities))
  logits = at_least_float32(student_logits)
  require(
    logits.ndim == 2 and logits.shape == teacher.shape,
    f"distillation_loss: teacher_probabilities have shape {teacher.shape} and student_logits "
    f"{logits.shape}, expected both [m, K].",
  )
  require_positive("distillation_loss: temperature", temperature)
  log_student = jax.nn.log_softmax(logits / temperature)
  divergence = optax.kl_divergence(log_student, teacher)  # [m]
  return temperature**2 * weighted_mean(divergence, weights)
