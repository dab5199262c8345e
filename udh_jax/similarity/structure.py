"""SSDH: which pairs are alike, by how distances of features are spread."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax import sharding
from udh_jax.clustering.fold import Rows, fold
from udh_jax.errors import is_traced, require, require_finite
from udh_jax.numerics import matmul
from udh_jax.similarity.cosine import cosines, unit_rows

BINS = 200  # of cosine distances, over [0, 2]
MOST_ROWS = 46_340  # whose pairs are counted within 32 bits


class HalfGaussians(NamedTuple):
  """Two half normal distributions that meet at the most frequent distance. Scalars.

  Attributes:
    mode: Their common mean.
    left_deviation: Standard deviation of the one below it.
    right_deviation: Of the one above it.
  """

  mode: jax.Array
  left_deviation: jax.Array
  right_deviation: jax.Array


def fit_half_gaussians(
  features: jax.Array,
  *,
  weights: jax.Array | None = None,
  chunk_size: int | None = 512,
  axis_name: str | None = None,
) -> HalfGaussians:
  """Fits two half Gaussians to the cosine distances of all pairs of different rows.

  The mode is the middle of the fullest of 200 bins over [0, 2]; a deviation is the root mean square
  distance of its side's values from the mode, as if they were mirrored at it. The distances of
  ``chunk_size`` rows to all others are held at a time, and computed twice.

  Args:
    features: A sample of a data set. Array of shape ``[n, d]``; with ``axis_name`` the rows of this
      shard, the same number on each.
    weights: 1, or 0 for a padded row. Array of shape ``[n]``; all 1 by default.
    chunk_size: See above; None for all rows at once. Static.
    axis_name: Mapped axis over which rows are sharded, or None. The whole sample travels.

  Returns:
    The distributions; a side without a pair has deviation 0.

  Raises:
    InputError: If a shape is wrong, there are more than `MOST_ROWS` rows (on all shards) or, where
      values are known, a value is not finite or fewer than two rows count.

  References:
    Yang et al., Semantic structure-based unsupervised deep hashing, IJCAI 2018, section 3.2. Its
    code looks for the mode among 100 bins over [0, 1] and takes their lower end, and pairs each row
    with itself too; bins over the whole range, their middle and different rows are our own.
  """
  features = jnp.asarray(features)
  require(
    features.ndim == 2 and features.shape[1] >= 1,
    f"fit_half_gaussians: features have shape {features.shape}, expected [n, d].",
  )
  shards = 1 if axis_name is None else lax.axis_size(axis_name)
  most = MOST_ROWS + (0 if weights is None else shards - 1)  # as padding
  weights = jnp.ones(len(features), jnp.float32) if weights is None else jnp.asarray(weights)
  require(
    weights.shape == features.shape[:1],
    f"fit_half_gaussians: weights have shape {weights.shape}, expected [{len(features)}].",
  )
  features = jnp.where(weights[:, None] > 0, features, 0)
  require_finite("fit_half_gaussians: features", features)
  require(
    shards * len(features) <= most,
    f"fit_half_gaussians: {shards * len(features):,} rows have more pairs than can be counted; "
    f"give at most {MOST_ROWS:,}, drawn at random.",
  )
  if axis_name is None and not is_traced(weights):
    count = int((np.asarray(weights) > 0).sum())
    require(count >= 2, f"fit_half_gaussians: {count} rows make no pair; give 2 or more.")
  return _fit(unit_rows(features), weights, chunk_size=chunk_size, axis_name=axis_name)


@functools.partial(jax.jit, static_argnames=("chunk_size", "axis_name"))
def _fit(unit, weights, *, chunk_size, axis_name):
  everything, everyone = unit, weights
  if axis_name is not None:
    everything = lax.all_gather(unit, axis_name, tiled=True)
    everyone = lax.all_gather(weights, axis_name, tiled=True)
  first = sharding.row_indices(len(unit), axis_name)[0]
  zero, one = jnp.zeros(unit.shape[1], unit.dtype), jnp.ones((), unit.dtype)
  rows = Rows(unit, (weights > 0).astype(unit.dtype), zero, one, chunk_size, axis_name)

  def over_pairs(function, start):
    """Adds up what ``function`` makes of distances ``[r, n]`` and of which pairs count."""

    def add(carry, block, weights, start):
      distances = 1 - matmul(block, everything.T)
      own = first + start + jnp.arange(len(block))
      other = own[:, None] != jnp.arange(len(everything))
      counts = (weights[:, None] > 0) & (everyone > 0) & other
      return jax.tree.map(jnp.add, carry, function(distances, counts))

    return sharding.psum(fold(rows, add, start), axis_name)

  def histogram(distances, counts):
    bins = jnp.clip(jnp.floor(distances * (BINS / 2)), 0, BINS - 1).astype(jnp.int32)
    return jnp.zeros(BINS, jnp.int32).at[bins.ravel()].add(counts.ravel().astype(jnp.int32))

  fullest = jnp.argmax(over_pairs(histogram, jnp.zeros(BINS, jnp.int32)))
  mode = (fullest.astype(unit.dtype) + 0.5) * (2 / BINS)

  def spread(distances, counts):
    squares = (distances - mode) ** 2
    sides = (counts & (distances <= mode), counts & (distances > mode))
    return tuple((jnp.sum(squares, where=side), jnp.sum(side, dtype=jnp.int32)) for side in sides)

  none = (jnp.zeros((), unit.dtype), jnp.zeros((), jnp.int32))
  deviations = (
    jnp.sqrt(total / jnp.maximum(count, 1)) for total, count in over_pairs(spread, (none, none))
  )
  return HalfGaussians(mode, *deviations)


def structure_signs(
  features: jax.Array, fitted: HalfGaussians, *, deviations: float = 2.0
) -> jax.Array:
  """Which pairs of a batch are alike, 1, which are not, -1, and which nobody knows, 0.

  1 where the cosine distance is below m - a s_l, -1 where it is above m + a s_r.

  Args:
    features: Array of shape ``[m, d]``.
    fitted: See `fit_half_gaussians`.
    deviations: a, at least 0.

  Returns:
    float32 array of shape ``[m, m]``.

  Raises:
    InputError: If the shape is wrong or ``deviations`` is negative.

  References:
    Yang et al., IJCAI 2018, equation 4; a = 2 is the authors'.
  """
  require(
    features.ndim == 2,
    f"structure_signs: features have shape {features.shape}, expected [m, d].",
  )
  require(deviations >= 0, f"structure_signs: deviations is {deviations}, expected at least 0.")
  distances = 1 - cosines(features, features)
  alike = distances < fitted.mode - deviations * fitted.left_deviation
  apart = distances > fitted.mode + deviations * fitted.right_deviation
  return alike.astype(jnp.float32) - apart.astype(jnp.float32)
