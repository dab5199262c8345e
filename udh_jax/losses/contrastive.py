"""Contrast between two views of a batch."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.coding.binary import sign
from udh_jax.errors import require, require_positive
from udh_jax.losses.reduction import row_weights, weighted_mean
from udh_jax.numerics import at_least_float32, matmul
from udh_jax.similarity.cosine import unit_rows


def copies(rows: jax.Array) -> jax.Array:
  """Which places of a batch hold one another's copy: the same row at another place.

  Args:
    rows: Row numbers. Integer array of shape ``[m]``.

  Returns:
    bool array of shape ``[m, m]``, symmetric; False on the diagonal.
  """
  rows = jnp.asarray(rows)
  return (rows[:, None] == rows) & ~jnp.eye(len(rows), dtype=bool)


def nt_xent(
  first: jax.Array,
  second: jax.Array,
  *,
  temperature: float,
  weights: jax.Array | None = None,
  rows: jax.Array | None = None,
) -> jax.Array:
  """Normalised-temperature cross-entropy between two views.

  Each of the 2m rows has its other view as the one right answer among the 2m - 1 other rows, scored
  by cosine similarity / temperature. Mean over both directions and all rows. A row of zeros has
  cosine 0 with everything and a gradient that is finite, but for float16, whose numbers end before.

  Args:
    first: Outputs (or straight-through codes) of the first view. Array of shape ``[m, c]``.
    second: The same images' second view. Array of shape ``[m, c]``.
    temperature: Divides the similarities, > 0; CIBHash takes 0.3. It may be traced.
    weights: 0 leaves an image out, as an anchor and as one of the others; else its weight as an
      anchor. Array of shape ``[m]``; None takes all alike.
    rows: Numbers of the images; another copy of an image is not one of its others. Integer array
      of shape ``[m]``; None takes all to differ.

  Returns:
    float32 scalar (float64 stays).

  Raises:
    InputError: If the shapes disagree, the batch is empty or ``temperature`` is not positive.

  References:
    Chen et al., SimCLR, ICML 2020, equation 1; Qiu et al., CIBHash, IJCAI 2021, section 3.1. That
    copies are left out is our own.
  """
  first, second = at_least_float32(first), at_least_float32(second)
  require(
    first.ndim == 2 and first.shape == second.shape and first.shape[0] >= 1,
    f"nt_xent: the views have shapes {first.shape} and {second.shape}, expected both [m, c] with "
    "m >= 1.",
  )
  require_positive("nt_xent: temperature", temperature)
  m = first.shape[0]
  views = unit_rows(jnp.concatenate([first, second]))
  logits = matmul(views, views.T) / temperature  # [2m, 2m]
  weights = row_weights(weights, m, views.dtype)
  both = jnp.concatenate([weights, weights])
  # A large number and not infinity: a row all of whose others are left out has a finite gradient.
  left_out = jnp.eye(2 * m, dtype=bool) | (both == 0)
  if rows is not None:
    require(jnp.shape(rows) == (m,), f"nt_xent: rows have shape {jnp.shape(rows)}, expected [{m}].")
    left_out |= jnp.tile(copies(rows), (2, 2))
  logits = jnp.where(left_out, -1e9, logits)
  positives = jnp.sum(views[:m] * views[m:], axis=1) / temperature  # [m], the same both ways
  losses = jax.nn.logsumexp(logits, axis=1) - jnp.concatenate([positives, positives])
  return weighted_mean(losses, both)


def bernoulli_divergence(
  first: jax.Array, second: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
  """Symmetric divergence between two sets of independent bits.

  (KL(p || q) + KL(q || p)) / 2, added up over the bits, mean over the rows.

  Args:
    first: Chances p that each bit is 1, in [0, 1]; kept 1e-6 away from both ends. Array of shape
      ``[m, c]``.
    second: q. Array of shape ``[m, c]``.
    weights: Weight of each row. Array of shape ``[m]``; None weighs all alike.

  Returns:
    float32 scalar (float64 stays).

  Raises:
    InputError: If the shapes disagree.

  References:
    Qiu et al., Unsupervised hashing with contrastive information bottleneck, IJCAI 2021, section
    3.2; bits are added and rows averaged as in its authors' code. There each of the two divergences
    has a gradient in its first argument alone; here both have it in both.
  """
  first, second = at_least_float32(first), at_least_float32(second)
  require(
    first.ndim == 2 and first.shape == second.shape,
    f"bernoulli_divergence: shapes are {first.shape} and {second.shape}, expected both [m, c].",
  )
  p, q = (jnp.clip(x, 1e-6, 1 - 1e-6) for x in (first, second))
  # KL(p || q) + KL(q || p) = (p - q) (logit p - logit q)
  logits = jnp.log(p) - jnp.log1p(-p) - jnp.log(q) + jnp.log1p(-q)
  return weighted_mean(jnp.sum((p - q) * logits, axis=1) / 2, weights)


def straight_through(relaxed: jax.Array, codes: jax.Array) -> jax.Array:
  """The codes, with the gradient of the relaxed codes.

  Args:
    relaxed: Array of any shape.
    codes: Array of the same shape.

  References:
    Bengio et al., Estimating or propagating gradients through stochastic neurons, 2013; as CIBHash,
    GreedyHash and BiHalf use it.
  """
  return relaxed + lax.stop_gradient(codes - relaxed)


def straight_through_sign(relaxed: jax.Array) -> jax.Array:
  """sign(u), in {-1, +1} with sign(0) = +1, by `straight_through`."""
  return straight_through(relaxed, sign(relaxed))
