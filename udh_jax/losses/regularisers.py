"""What keeps real-valued outputs close to good bits."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.coding.binary import sign
from udh_jax.errors import require
from udh_jax.losses.reduction import weighted_mean
from udh_jax.numerics import at_least_float32


def quantisation_loss(outputs: jax.Array, *, weights: jax.Array | None = None) -> jax.Array:
  """Distance of the outputs from their signs: the mean of (u - sign(u))^2 over rows and bits.

  A mean over bits too, that is ||u - sign(u)||^2 / c for each row, so that the weight of the term
  need not change with the number of bits. sign(0) = +1; no gradient flows through the sign.

  Args:
    outputs: Real-valued hash outputs u. Array of shape ``[m, c]``.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shape is wrong.

  References:
    [ours] in UDH-ECC; the term of Liu et al., Deep Supervised Hashing, CVPR 2016, with squares.
  """
  outputs = _checked("quantisation_loss", outputs)
  codes = lax.stop_gradient(sign(outputs))
  return weighted_mean(jnp.mean((outputs - codes) ** 2, axis=1), weights)


def bit_balance_loss(outputs: jax.Array, *, weights: jax.Array | None = None) -> jax.Array:
  """How far the bits are from being +1 half of the time: ||mean_i u_i||^2 / c.

  The mean over bits of the squared batch mean of a bit: divided by the number of bits, so that the
  weight of the term need not change with it.

  Args:
    outputs: Real-valued hash outputs u. Array of shape ``[m, c]``.
    weights: Weight of each row, at least 0. Array of shape ``[m]``; None weighs all alike.

  Returns:
    float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shape is wrong.

  References:
    [ours] in UDH-ECC; bit balance goes back to Weiss et al., Spectral Hashing, NIPS 2008.
  """
  outputs = _checked("bit_balance_loss", outputs)
  return jnp.mean(weighted_mean(outputs, weights) ** 2)


def _checked(name, outputs):
  outputs = at_least_float32(outputs)
  require(
    outputs.ndim == 2 and outputs.shape[1] >= 1,
    f"{name}: outputs have shape {outputs.shape}, expected [m, c] with c >= 1.",
  )
  return outputs
