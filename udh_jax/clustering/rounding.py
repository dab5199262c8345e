"""Hard assignment with exact sizes from column potentials."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.clustering import sharding


def _threshold(keys, groups, eligible, quota, axis_name):
  """The quota-th lowest key of each group, found digit by digit from global histograms.

  Counting needs K x 256 integers a pass and no sort or gather of rows, however they are sharded.

  Args:
    keys: uint32 [n].
    groups: int32 [n] in 0..K-1.
    eligible: Whether a row takes part. Bool [n].
    quota: int32 [K], at most the number of eligible rows.
    axis_name: Mapped axis, or None.

  Returns:
    The key [K], and how many rows with exactly this key belong to the quota [K].
  """
  num_groups = quota.shape[0]

  def digit_pass(index, carry):
    prefix, quota = carry
    shift = jnp.uint32(24) - 8 * index.astype(jnp.uint32)
    above = keys >> shift >> 8  # A shift by all 32 bits is undefined, hence two.
    match = eligible & (above == prefix[groups])
    digit = ((keys >> shift) & 255).astype(jnp.int32)
    histogram = jnp.zeros(num_groups * 256, jnp.int32).at[groups * 256 + digit].add(match)
    histogram = sharding.psum(histogram, axis_name).reshape(num_groups, 256)
    upto = jnp.cumsum(histogram, axis=1)  # [K, 256]
    below = upto < quota[:, None]
    chosen = jnp.sum(below, axis=1)
    quota = quota - jnp.max(jnp.where(below, upto, 0), axis=1)
    return prefix * 256 + chosen.astype(jnp.uint32), quota

  return lax.fori_loop(0, 4, digit_pass, (jnp.zeros(num_groups, jnp.uint32), quota))


def select_lowest(
  values: jax.Array,
  groups: jax.Array,
  eligible: jax.Array,
  quota: jax.Array,
  *,
  axis_name: str | None = None,
) -> jax.Array:
  """Marks the rows with the lowest values of each group, over all shards.

  Args:
    values: Float32 array of shape ``[n]``, without NaN.
    groups: Group of each row. int32 array of shape ``[n]``.
    eligible: Whether the row may be marked. Bool array of shape ``[n]``.
    quota: How many rows of each group to mark at most. int32 array of shape ``[K]``.
    axis_name: Mapped axis over which rows are sharded, or None.

  Returns:
    Bool array of shape ``[n]``. Exactly min(quota, eligible rows) are marked in each group; ties
    go to the lower global row index.
  """
  groups = jnp.where(eligible, groups, 0)
  available = jnp.zeros_like(quota).at[groups].add(eligible)
  quota = jnp.minimum(quota, sharding.psum(available, axis_name))
  bits = lax.bitcast_convert_type(values + 0.0, jnp.uint32)  # + 0.0: -0 and 0 are one value.
  keys = jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))  # Ordered as the floats.
  last, ties = _threshold(keys, groups, eligible, quota, axis_name)
  tied = eligible & (keys == last[groups])
  index = sharding.row_indices(values.shape[0], axis_name).astype(jnp.uint32)
  last_index, one = _threshold(index, groups, tied, ties, axis_name)
  tied &= (index < last_index[groups]) | ((index == last_index[groups]) & (one[groups] > 0))
  return (eligible & (keys < last[groups])) | tied


def first_argmin(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Index and value of the least entry of each row, the first of equal ones.

  Two plain reductions: XLA's own argmin is about five times slower on the CPU.
  """
  least = jnp.min(values, axis=1)
  places = jnp.arange(values.shape[1], dtype=jnp.int32)
  index = jnp.min(jnp.where(values == least[:, None], places, values.shape[1] - 1), axis=1)
  return index, least


def round_to_sizes(fold_costs, potential, bounds, weights, axis_name):
  """Assigns each row to its cheapest column, then repairs the sizes with the least regret.

  Rows leave columns that are too full for ones that have room, then rows from anywhere fill columns
  that are too empty; in each round a column gives, and a column takes, the rows that lose least.
  Every round but the last fills a column, so there are at most 2 K.

  Args:
    fold_costs: Runs a function (carry, features, cost, weights, start) over blocks of rows.
    potential: Column potentials. Array of shape ``[K]``.
    bounds: Least and most rows of each column, int32 arrays of shape ``[K]``.
    weights: 1, or 0 for a padded row. Array of shape ``[n]``.
    axis_name: Mapped axis over which rows are sharded, or None.

  Returns:
    Labels, -1 where the weight is 0. int32 array of shape ``[n]``.
  """
  low, high = bounds
  num_clusters = potential.shape[0]
  real = weights > 0

  def nearest(open_columns):
    """Each row's best open column and the reduced cost there."""

    def add(carry, block, cost, weights, start):
      index, value = first_argmin(jnp.where(open_columns, cost - potential, jnp.inf))
      return (
        lax.dynamic_update_slice(carry[0], index, (start,)),
        lax.dynamic_update_slice(carry[1], value, (start,)),
      )

    return fold_costs(add, (jnp.zeros(weights.shape, jnp.int32), jnp.zeros_like(weights)))

  def count(labels):
    return sharding.psum(jnp.zeros(num_clusters, jnp.int32).at[labels].add(real), axis_name)

  def bad(carry):
    _, _, sizes, rounds = carry
    return jnp.any((sizes > high) | (sizes < low)) & (rounds < 2 * num_clusters + 2)

  def repair(carry):
    labels, values, sizes, rounds = carry
    full = jnp.any(sizes > high)
    give = jnp.maximum(sizes - jnp.where(full, high, low), 0)
    take = jnp.maximum(jnp.where(full, high, low) - sizes, 0)
    target, value = nearest(take > 0)
    regret = value - values
    released = select_lowest(regret, labels, real & (give[labels] > 0), give, axis_name=axis_name)
    moved = select_lowest(regret, target, released, take, axis_name=axis_name)
    labels = jnp.where(moved, target, labels)
    return labels, jnp.where(moved, value, values), count(labels), rounds + 1

  labels, values = nearest(jnp.ones(num_clusters, bool))
  carry = labels, values, count(labels), jnp.int32(0)
  labels = lax.while_loop(bad, repair, carry)[0]
  return jnp.where(real, labels, -1)
