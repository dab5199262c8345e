"""Groups of a network's channels: where each looks, and what it sees there."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.errors import require
from udh_jax.numerics import at_least_float32


def require_groups(channels: int, groups: int) -> None:
  """Refuses a number of groups that does not divide the channels.

  Raises:
    InputError: If so.
  """
  require(
    groups >= 1 and channels % groups == 0,
    f"{channels} channels cannot be split into {groups} equal groups; choose a divisor of "
    f"{channels}, such as {_nearest_divisor(channels, groups)}.",
  )


def _nearest_divisor(number, wanted):
  divisors = (d for d in range(1, number + 1) if number % d == 0)
  return min(divisors, key=lambda divisor: abs(divisor - wanted))


def attention_maps(feature_map: jax.Array, *, groups: int, temperature: float = 1.0) -> jax.Array:
  """Where each group of channels looks.

  a_i^g = softmax over the positions of the mean of the group's channels / temperature.

  Args:
    feature_map: F. Array of shape ``[m, h, w, C]``.
    groups: G, a divisor of C; a group is C / G channels that follow each other.
    temperature: Divides the means, above 0; less makes the maps sharper.

  Returns:
    float32 array of shape ``[m, h, w, G]``, which adds up to 1 over the positions.

  Raises:
    InputError: If the shape is wrong, G does not divide C or ``temperature`` is not positive.

  References:
    PSCH: groups of deep feature maps with an attention map each are the paper's (its abstract);
    the formula is our own.
  """
  feature_map = at_least_float32(feature_map)
  require(
    feature_map.ndim == 4,
    f"attention_maps: the feature map has shape {feature_map.shape}, expected [m, h, w, C].",
  )
  require(temperature > 0, f"attention_maps: temperature is {temperature}, expected > 0.")
  m, height, width, channels = feature_map.shape
  require_groups(channels, groups)
  means = feature_map.reshape(m, height * width, groups, channels // groups).mean(axis=3)
  return jax.nn.softmax(means / temperature, axis=1).reshape(m, height, width, groups)


def part_vectors(feature_map: jax.Array, attention: jax.Array) -> jax.Array:
  """One vector for each group: v_i^g = sum_p a_i^g(p) F_i^g(p).

  Args:
    feature_map: F. Array of shape ``[m, h, w, C]``.
    attention: See `attention_maps`. Array of shape ``[m, h, w, G]``.

  Returns:
    float32 array of shape ``[m, G, C / G]``.

  Raises:
    InputError: If the shapes disagree.

  References:
    PSCH, our own formula.
  """
  feature_map, attention = at_least_float32(feature_map), at_least_float32(attention)
  require(
    feature_map.ndim == 4 and attention.shape[:3] == feature_map.shape[:3],
    f"part_vectors: feature map and attention have shapes {feature_map.shape} and "
    f"{attention.shape}, expected [m, h, w, C] and [m, h, w, G].",
  )
  m, height, width, channels = feature_map.shape
  groups = attention.shape[3]
  require_groups(channels, groups)
  grouped = feature_map.reshape(m, height * width, groups, channels // groups)
  weights = attention.reshape(m, height * width, groups)
  return jnp.einsum("mpgc,mpg->mgc", grouped, weights, precision=lax.Precision.HIGHEST)
