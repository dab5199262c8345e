"""UCCH: contrast of outputs with a memory of codes, and a ranking of the batch's pairs."""

import jax
import jax.numpy as jnp

from udh_jax.errors import require, require_positive
from udh_jax.losses.contrastive import copies
from udh_jax.losses.reduction import row_weights, weighted_mean
from udh_jax.numerics import at_least_float32, matmul
from udh_jax.similarity.cosine import unit_rows


def _require_outputs(name, first, second):
  require(
    first.ndim == 2 and first.shape == second.shape and len(first) >= 1,
    f"{name}: outputs have shapes {first.shape} and {second.shape}, expected both [m, c] with "
    "m >= 1.",
  )


def memory_contrast(
  outputs: jax.Array,
  own: jax.Array,
  others: jax.Array,
  *,
  temperature: float,
  weights: jax.Array | None = None,
  left_out: jax.Array | None = None,
) -> jax.Array:
  """Cross-entropy of each output's own code among others, by inner products.

  -log exp(u_i b_i / t) / (exp(u_i b_i / t) + sum_k exp(u_i b_k / t)), t = T sqrt(c).

  Args:
    outputs: u, rows of unit length. Array of shape ``[m, c]``.
    own: b_i, the code of each row's own pair, in {-1, +1}. Array of shape ``[m, c]``.
    others: b_k, codes of other pairs, in {-1, +1}; among those drawn at random a few may be the
      own. Array of shape ``[k, c]``.
    temperature: T, > 0; the authors take 0.9.
    weights: Weight of each row. Array of shape ``[m]``; None weighs all alike.
    left_out: Which codes are no others of which row. Bool array of shape ``[m, k]``; None is none.

  Returns:
    float32 scalar (float64 stays).

  Raises:
    InputError: If the shapes disagree or ``temperature`` is not positive.

  References:
    Hu et al., Unsupervised contrastive cross-modal hashing (UCCH), IEEE TPAMI 2023, and the
    authors' code.
  """
  outputs = at_least_float32(outputs)
  _require_outputs("memory_contrast", outputs, own)
  require(
    others.ndim == 2 and others.shape[1] == outputs.shape[1],
    f"memory_contrast: other codes have the shape {others.shape}, expected [k, {own.shape[1]}].",
  )
  require_positive("memory_contrast: temperature", temperature)
  scale = temperature * outputs.shape[1] ** 0.5
  positives = jnp.sum(outputs * own, axis=1) / scale  # [m]
  logits = matmul(outputs, others.T) / scale  # [m, k]
  if left_out is not None:
    logits = jnp.where(left_out, -1e9, logits)
  logits = jnp.concatenate([positives[:, None], logits], axis=1)
  return weighted_mean(jax.nn.logsumexp(logits, axis=1) - positives, weights)


def ranking_loss(
  images: jax.Array,
  texts: jax.Array,
  *,
  margin: float,
  shift: float,
  weights: jax.Array | None = None,
  rows: jax.Array | None = None,
) -> jax.Array:
  """Ranks every pair's own text above the others, and its own image.

  With s_ij = u_i v_j, and s'_ij = s_ij where s_ij >= s_ii - margin, else s_ij - shift: the mean of
  log sum_j exp(s'_ij) - s_ii + margin, and the same over columns. All others count, not the hardest
  alone, so that others of the same meaning, which must be near, cost little.

  Args:
    images: u, rows of unit length. Array of shape ``[m, c]``.
    texts: v, of the same pairs. Array of shape ``[m, c]``.
    margin: From which distance below its own another counts less, >= 0; the authors take 0.2.
    shift: By how much less, >= 0; the authors take 0.1 to 1.
    weights: 0 leaves a pair out. Array of shape ``[m]``; None takes all alike.
    rows: Numbers of the pairs; another copy of a pair is not one of its others. Integer array of
      shape ``[m]``; None takes all to differ.

  Returns:
    float32 scalar (float64 stays).

  Raises:
    InputError: If the shapes disagree, or ``margin`` or ``shift`` is negative.

  References:
    Hu et al., UCCH, IEEE TPAMI 2023 (cross-modal ranking loss), and the authors' code.
  """
  images, texts = at_least_float32(images), at_least_float32(texts)
  _require_outputs("ranking_loss", images, texts)
  for name, value in (("margin", margin), ("shift", shift)):
    require(value >= 0, f"ranking_loss: {name} is {value}, expected 0 or more.")
  weights = row_weights(weights, len(images), images.dtype)
  scores = matmul(images, texts.T)  # [m, m]
  own = jnp.diagonal(scores)
  left_out = weights == 0
  if rows is not None:
    require(
      jnp.shape(rows) == own.shape,
      f"ranking_loss: rows have shape {jnp.shape(rows)}, expected [{len(own)}].",
    )
    left_out = left_out | copies(rows)

  def one_way(scores):
    near = scores >= own[:, None] - margin
    shifted = jnp.where(near, scores, scores - shift)
    shifted = jnp.where(left_out, -1e9, shifted)
    return weighted_mean(jax.nn.logsumexp(shifted, axis=1) - own + margin, weights)

  return one_way(scores) + one_way(scores.T)


def remembered(
  memory: jax.Array, images: jax.Array, texts: jax.Array, *, momentum: jax.Array | float
) -> jax.Array:
  """What the memory keeps of some pairs after a step.

  m <- normalised(momentum m + (1 - momentum) normalised((u + v) / 2)).

  Args:
    memory: What it had of these pairs. Array of shape ``[m, c]``.
    images: u, rows of unit length. Array of shape ``[m, c]``.
    texts: v, of the same pairs. Array of shape ``[m, c]``.
    momentum: In [0, 1].

  Returns:
    Rows of unit length, ``[m, c]``; their signs are the codes.

  References:
    Hu et al., UCCH, IEEE TPAMI 2023 (momentum optimiser of the codes), and the authors' code.
  """
  return unit_rows(momentum * memory + (1 - momentum) * unit_rows((images + texts) / 2))
