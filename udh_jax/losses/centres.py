"""Losses that pull codes to bits: to fixed centres of the classes, and to -1 and +1."""

import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.losses.reduction import weighted_mean
from udh_jax.numerics import at_least_float32, matmul


def greedy_penalty(outputs: jax.Array, *, weights: jax.Array | None = None) -> jax.Array:
  """Mean over rows and bits of ||u| - 1|^3.

  Args:
    outputs: u. Array of shape ``[m, c]``.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shape is wrong.

  References:
    Su et al., Greedy Hash, NeurIPS 2018, section 3.3, as a mean, as in the authors' code.
  """
  outputs = at_least_float32(outputs)
  require(
    outputs.ndim == 2, f"greedy_penalty: outputs have shape {outputs.shape}, expected [m, c]."
  )
  return weighted_mean(jnp.mean(jnp.abs(jnp.abs(outputs) - 1) ** 3, axis=1), weights)


def majority_centres(
  class_centres: jax.Array, targets: jax.Array, tie_break: jax.Array
) -> jax.Array:
  """The centre of each row: by majority, bit by bit, of the centres of its classes.

  Args:
    class_centres: Values in {-1, +1}. Array of shape ``[K, c]``.
    targets: Classes of each row. Bool array of shape ``[m, K]``, see
      `udh_jax.losses.labels.label_targets`.
    tie_break: The bits of a row whose classes are divided. Values in {-1, +1}, shape ``[c]``.

  Returns:
    float32 array of shape ``[m, c]``, values in {-1, +1}.

  Raises:
    InputError: If the shapes disagree or ``targets`` are not bool.

  References:
    Yuan et al., Central similarity quantization, CVPR 2020, section 3.2; one random code that
    breaks all ties is the authors' code.
  """
  require(
    targets.ndim == 2 and targets.dtype == jnp.bool_,
    f"majority_centres: targets are {targets.dtype} of shape {targets.shape}, expected multi-hot "
    "bool [m, K]; pass single labels through label_targets.",
  )
  require(
    class_centres.ndim == 2
    and targets.shape[1] == class_centres.shape[0]
    and tie_break.shape == class_centres.shape[1:],
    f"majority_centres: centres, targets and tie break have shapes {class_centres.shape}, "
    f"{targets.shape} and {tie_break.shape}, expected [K, c], [m, K] and [c].",
  )
  votes = matmul(targets.astype(jnp.float32), class_centres.astype(jnp.float32))
  return jnp.where(votes == 0, tie_break, jnp.sign(votes)).astype(jnp.float32)


def central_similarity_loss(
  outputs: jax.Array, centres: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
  """Binary cross-entropy of the chances (1 + u) / 2 against the bits of each row's centre.

  Args:
    outputs: u, in [-1, 1]; the chances are kept 1e-6 away from 0 and 1. Array of shape ``[m, c]``.
    centres: Values in {-1, +1}. Array of shape ``[m, c]``.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    Mean over bits and weighted mean over rows, float32 scalar (float64 stays).

  Raises:
    InputError: If the shapes disagree.

  References:
    Yuan et al., Central similarity quantization, CVPR 2020, equation 4.
  """
  outputs, centres = at_least_float32(outputs), jnp.asarray(centres)
  require(
    outputs.ndim == 2 and outputs.shape == centres.shape,
    f"central_similarity_loss: outputs have shape {outputs.shape} and centres {centres.shape}, "
    "expected both [m, c].",
  )
  # The chance of the right bit is (1 + u h) / 2.
  chance = jnp.clip((1 + outputs * centres) / 2, 1e-6, 1 - 1e-6)
  return weighted_mean(-jnp.mean(jnp.log(chance), axis=1), weights)
