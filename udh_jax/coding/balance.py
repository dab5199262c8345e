"""Codes every bit of which has two values that are equally frequent in a batch."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.errors import require
from udh_jax.sharding import row_indices


def half_codes(
  outputs: jax.Array, *, weights: jax.Array | None = None, axis_name: str | None = None
) -> jax.Array:
  """+1 for the half of the rows with the larger outputs and -1 for the others, bit by bit.

  Of all codes with balanced bits these are the nearest to the outputs. Of an odd number of rows the
  one in the middle is -1; of equal outputs the one of the first row counts as the larger.

  Args:
    outputs: Real values. Array of shape ``[m, c]``.
    weights: 0 leaves a row out: it takes no place among the others, and is -1. Array of shape
      ``[m]``; None takes all.
    axis_name: Mapped axis that the rows of the batch are split over.

  Returns:
    Values in {-1, +1}, shape and dtype of ``outputs``; without a gradient.

  Raises:
    InputError: If the shapes are wrong.

  References:
    Li and van Gemert, Deep unsupervised image hashing by maximizing bit entropy, AAAI 2021, and
    their code; the order of equal outputs is our own.
  """
  require(outputs.ndim == 2, f"half_codes: outputs have shape {outputs.shape}, expected [m, c].")
  weights = jnp.ones(len(outputs)) if weights is None else jnp.asarray(weights)
  require(
    weights.shape == outputs.shape[:1],
    f"half_codes: weights have shape {weights.shape}, expected [{len(outputs)}].",
  )
  mine = row_indices(len(outputs), axis_name)
  if axis_name is not None:
    outputs, weights = (lax.all_gather(x, axis_name, tiled=True) for x in (outputs, weights))
  taken = weights > 0
  keys = jnp.where(taken[:, None], -lax.stop_gradient(outputs), jnp.inf)
  order = jnp.argsort(keys, axis=0, stable=True)  # [m, c]: rows of each bit, the largest first
  places = jnp.argsort(order, axis=0)[mine]
  half = jnp.sum(taken) // 2
  return jnp.where(places < half, 1, -1).astype(outputs.dtype)
