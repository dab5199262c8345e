"""Labels of one class or of several, as losses read them."""

import jax
import jax.numpy as jnp

from udh_jax.errors import require, require_labels
from udh_jax.losses.classification import soft_cross_entropy
from udh_jax.losses.reduction import row_weights
from udh_jax.numerics import at_least_float32


def label_targets(labels: jax.Array, num_classes: int) -> jax.Array:
  """Which classes each row belongs to.

  Args:
    labels: Class of each row, in 0..K-1, or -1 for a row without one. Integer array of shape
      ``[m]``; or multi-hot, bool array of shape ``[m, K]``.
    num_classes: K.

  Returns:
    Bool array of shape ``[m, K]``.

  Raises:
    InputError: If the shape or dtype is another or, where values are known, a class is not in
      -1..K-1.
  """
  labels = jnp.asarray(labels)
  if labels.ndim == 2:
    require(
      labels.dtype == jnp.bool_ and labels.shape[1] == num_classes,
      f"labels are {labels.dtype} of shape {labels.shape}, expected multi-hot bool [m, K] with K = "
      f"{num_classes}, or one integer a row, [m].",
    )
    return labels
  require(
    labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer),
    f"labels are {labels.dtype} of shape {labels.shape}, expected integers [m], or multi-hot bool "
    f"[m, {num_classes}].",
  )
  require_labels("label_targets", labels, num_classes)
  return labels.astype(jnp.int32)[:, None] == jnp.arange(num_classes, dtype=jnp.int32)


def label_cross_entropy(
  logits: jax.Array, targets: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
  """Cross-entropy against y / |y|: every class of a row has the same share of it.

  Args:
    logits: Array of shape ``[m, K]``.
    targets: y, see `label_targets`. A row without a class is left out.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Weighted mean over the rows that have a class, float32 scalar (float64 stays); 0 if there
    is none.

  Raises:
    InputError: If the shapes disagree.

  References:
    One class: the textbook definition. Several: the soft targets of OrthoHash (Hoe et al., NeurIPS
    2021), whose authors call them label smoothing.
  """
  logits, targets = at_least_float32(logits), jnp.asarray(targets)
  counts = jnp.sum(targets, axis=-1)
  weights = (counts > 0) * row_weights(weights, len(targets), jnp.float32)
  shares = targets / jnp.maximum(counts, 1).astype(logits.dtype)[..., None]
  return soft_cross_entropy(logits, shares, weights=weights)
