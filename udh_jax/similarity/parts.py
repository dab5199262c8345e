"""How alike images are part by part, and what pseudo labels say of pairs."""

import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.numerics import at_least_float32, matmul
from udh_jax.similarity.cosine import unit_rows


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
  return matmul(unit, unit.T) / groups


def pseudo_label_pairs(
  labels: jax.Array, similarity: jax.Array, *, apart: float = 0.0
) -> tuple[jax.Array, jax.Array]:
  """What the pseudo labels of several clusterings say of pairs.

  In one clustering, two confident images of one pseudo class have their similarity for a target,
  two of different ones ``apart``; of any other pair it knows nothing. The target is the mean over
  the clusterings that know the pair, its weight their share.

  Args:
    labels: Pseudo labels of each image, -1 where one is not confident. Integer array of shape
      ``[m, H]``, H clusterings.
    similarity: See `part_similarity`; ones for hard targets. Array of shape ``[m, m]``.
    apart: In [-1, 1]. Codes of K classes cannot all be further apart than -1 / (K - 1).

  Returns:
    Targets ``[m, m]`` and weights ``[m, m]``, from 0, where nothing is known, to 1; float32.

  Raises:
    InputError: If the shapes disagree, the labels are not integers or ``apart`` is out of range.

  References:
    PSCH: soft similarity within a class, and codes of different classes apart, are the paper's;
    the values, and that there may be several clusterings, are our own.
  """
  require(
    labels.ndim == 2
    and jnp.issubdtype(labels.dtype, jnp.integer)
    and similarity.shape == (len(labels),) * 2,
    f"pseudo_label_pairs: labels are {labels.dtype} of shape {labels.shape} and the similarity has "
    f"shape {similarity.shape}, expected integers [m, H] and [m, m].",
  )
  require(-1 <= apart <= 1, f"pseudo_label_pairs: apart is {apart}, expected -1 to 1.")
  confident = labels >= 0
  known = confident[:, None] & confident  # [m, m, H]
  targets = jnp.where(labels[:, None] == labels, at_least_float32(similarity)[..., None], apart)
  count = known.sum(axis=2)
  mean = jnp.where(known, targets, 0.0).sum(axis=2) / jnp.maximum(count, 1)
  return mean, count / jnp.float32(labels.shape[1])
