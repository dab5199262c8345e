"""How alike images are part by part, and what pairs of a batch are trained to be."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.errors import require
from udh_jax.losses.cosine import unit_rows
from udh_jax.losses.reduction import at_least_float32


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


def part_similarity(parts: jax.Array) -> jax.Array:
  """Soft multi-part similarity of all pairs of a batch: s_ij = mean_g cos(v_i^g, v_j^g).

  Args:
    parts: See `part_vectors`. A part of zeros has cosine 0 with everything. Array of shape
      ``[m, G, d]``.

  Returns:
    float32 array of shape ``[m, m]``, symmetric, in [-1, 1].

  Raises:
    InputError: If the shape is wrong.

  References:
    PSCH: similarity from several parts is the paper's, the mean of cosines our own.
  """
  require(parts.ndim == 3, f"part_similarity: parts have shape {parts.shape}, expected [m, G, d].")
  m, groups, dim = parts.shape
  unit = unit_rows(parts.reshape(m * groups, dim)).reshape(m, groups * dim)
  # One product for all groups: the cosines of a pair's parts add up in it.
  return jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST) / groups


def pseudo_label_pairs(
  labels: jax.Array, similarity: jax.Array, *, apart: float = 0.0
) -> tuple[jax.Array, jax.Array]:
  """What pseudo labels say of pairs.

  Two confident images of one pseudo class have their similarity for a target, two of different
  ones ``apart``; of any other pair nothing is known.

  Args:
    labels: Pseudo label of each image, -1 where it is not confident. Integer array of shape
      ``[m]``.
    similarity: See `part_similarity`; ones for hard targets. Array of shape ``[m, m]``.
    apart: In [-1, 1]. Codes of K classes cannot all be further apart than -1 / (K - 1).

  Returns:
    Targets ``[m, m]`` and weights ``[m, m]``, 1 where the target is known, else 0; float32.

  Raises:
    InputError: If the shapes disagree, the labels are no integers or ``apart`` is out of range.

  References:
    PSCH: soft similarity within a class, and codes of different classes apart, are the paper's;
    the values are our own.
  """
  require(
    labels.ndim == 1
    and jnp.issubdtype(labels.dtype, jnp.integer)
    and similarity.shape == (len(labels),) * 2,
    f"pseudo_label_pairs: labels are {labels.dtype} of shape {labels.shape} and the similarity has "
    f"shape {similarity.shape}, expected one integer an image, [m], and [m, m].",
  )
  require(-1 <= apart <= 1, f"pseudo_label_pairs: apart is {apart}, expected -1 to 1.")
  confident = labels >= 0
  known = confident[:, None] & confident
  targets = jnp.where(labels[:, None] == labels, at_least_float32(similarity), apart)
  return jnp.where(known, targets, 0.0), known.astype(jnp.float32)


def pair_loss(
  outputs: jax.Array,
  targets: jax.Array,
  pair_weights: jax.Array,
  *,
  weights: jax.Array | None = None,
) -> jax.Array:
  """Mean over the pairs of a batch of w_ij (u_i . u_j / c - T_ij)^2.

  The mean is over all pairs, those of weight 0 too: where little is known, little is learned. An
  image's pair with itself is one of them.

  Args:
    outputs: Relaxed codes u. Array of shape ``[m, c]``.
    targets: T. Array of shape ``[m, m]``.
    pair_weights: w. Array of shape ``[m, m]``.
    weights: Weight of each row; a pair of rows has the product. Array of shape ``[m]``; None
      weighs all alike.

  Returns:
    float32 scalar (float64 stays); 0 if all weights are 0.

  Raises:
    InputError: If the shapes disagree.

  References:
    Yang et al., Semantic structure-based unsupervised deep hashing, IJCAI 2018, equation 6, and its
    code; PSCH's use of it is our own.
  """
  outputs = at_least_float32(outputs)
  require(
    outputs.ndim == 2 and targets.shape == pair_weights.shape == (len(outputs),) * 2,
    f"pair_loss: outputs, targets and pair weights have shapes {outputs.shape}, {targets.shape} "
    f"and {pair_weights.shape}, expected [m, c], [m, m] and [m, m].",
  )
  weights = jnp.ones(len(outputs), outputs.dtype) if weights is None else jnp.asarray(weights)
  require(
    weights.shape == outputs.shape[:1],
    f"weights have shape {weights.shape}, the batch has {len(outputs)} rows; expected "
    f"[{len(outputs)}].",
  )
  outputs = jnp.where(weights[:, None] > 0, outputs, 0)
  similarity = jnp.matmul(outputs, outputs.T, precision=lax.Precision.HIGHEST) / outputs.shape[1]
  both = weights[:, None] * weights
  squares = jnp.where(both > 0, pair_weights * (similarity - targets) ** 2, 0)
  return jnp.sum(both * squares) / jnp.maximum(jnp.sum(both), 1e-12)
