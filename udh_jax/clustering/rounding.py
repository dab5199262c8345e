"""Hard assignment with exact sizes from column potentials.

Rows go to the column that is cheapest for them, which good potentials make nearly even. What is
left to move is found exactly, among the rows that lose least by moving.
"""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax import sharding
from udh_jax.clustering.potentials import FoldCosts

# Rows of a column that may be handed on along cheapest paths, and all columns' together if few.
MOVABLE_ROWS_PER_COLUMN = 16
MOVABLE_ROWS = 2048
# Largest table of movable rows and columns; beyond it a path takes longer than it is worth.
MOVABLE_TABLE = 2**21

FAR = 1e30  # More than any cost.
ROUNDING = 1e-6  # Paths that differ by less are equal; the rows' mean square norm is 1.


def _threshold(keys, groups, eligible, quota, axis_name):
  """The quota-th lowest key of each group, found digit by digit from global histograms.

  Counting needs K x 256 integers a pass and no sort or gather of rows, however they are sharded.

  Args:
    keys: uint32 or uint64 [n].
    groups: int32 [n] in 0..K-1.
    eligible: Whether a row takes part. Bool [n].
    quota: int32 [K], at most the number of eligible rows.
    axis_name: Mapped axis, or None.

  Returns:
    The key [K], and how many rows with exactly this key belong to the quota [K].
  """
  num_groups, num_digits = quota.shape[0], keys.dtype.itemsize

  def digit_pass(index, carry):
    prefix, quota = carry
    shift = (8 * (num_digits - 1 - index)).astype(keys.dtype)
    above = keys >> shift >> 8  # A shift by all bits is undefined, hence two.
    match = eligible & (above == prefix[groups])
    digit = ((keys >> shift) & 255).astype(jnp.int32)
    histogram = jnp.zeros(num_groups * 256, jnp.int32).at[groups * 256 + digit].add(match)
    histogram = sharding.psum(histogram, axis_name).reshape(num_groups, 256)
    upto = jnp.cumsum(histogram, axis=1, dtype=jnp.int32)  # [K, 256]
    below = upto < quota[:, None]
    chosen = jnp.sum(below, axis=1, dtype=jnp.int32)
    quota = quota - jnp.max(jnp.where(below, upto, 0), axis=1)
    return prefix * 256 + chosen.astype(keys.dtype), quota

  return lax.fori_loop(0, num_digits, digit_pass, (jnp.zeros(num_groups, keys.dtype), quota))


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
    values: float32 or float64 array of shape ``[n]``, without NaN.
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
  kind = jnp.uint32 if values.dtype == jnp.float32 else jnp.uint64
  sign = kind(1 << (8 * values.dtype.itemsize - 1))
  values = jnp.where(values == 0, jnp.zeros_like(values), values)  # -0 and 0 are one value
  bits = lax.bitcast_convert_type(values, kind)
  keys = jnp.where(bits & sign > 0, ~bits, bits | sign)  # Ordered as the floats.
  last, ties = _threshold(keys, groups, eligible, quota, axis_name)
  tied = eligible & (keys == last[groups])
  index = sharding.row_indices(values.shape[0], axis_name).astype(jnp.uint32)
  last_index, one = _threshold(index, groups, tied, ties, axis_name)
  tied &= (index < last_index[groups]) | ((index == last_index[groups]) & (one[groups] > 0))
  return (eligible & (keys < last[groups])) | tied


def first_argmin(values: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Index and value of the least entry of each row, the first of equal ones.

  Arithmetic only: on the CPU, XLA's argmin and selections by comparison are up to ten times slower.

  Args:
    values: At least one finite value in each row. Array of shape ``[m, K]``.

  Returns:
    int32 array of shape ``[m]`` and array of shape ``[m]``.
  """
  num_columns = values.shape[1]
  least = lax.optimization_barrier(jnp.min(values, axis=1))
  excess = jnp.minimum((values - least[:, None]) * 1e38, num_columns)  # 0 at the least, or K.
  index = jnp.min(excess + jnp.arange(num_columns, dtype=values.dtype), axis=1)
  return index.astype(jnp.int32), least


def own_column(labels: jax.Array, num_columns: int, dtype: jax.typing.DTypeLike) -> jax.Array:
  """1 in the column of each row's label and 0 elsewhere, [m, K]; by arithmetic, as above.

  Args:
    labels: int32 array of shape ``[m]``.
    num_columns: K.
    dtype: Floating type of the result.

  Returns:
    Array of shape ``[m, K]``.
  """
  apart = labels.astype(dtype)[:, None] - jnp.arange(num_columns, dtype=dtype)
  return jnp.maximum(1 - jnp.abs(apart), 0)


def target_sizes(
  counts: jax.Array, potential: jax.Array, low: jax.Array, high: jax.Array
) -> jax.Array:
  """Sizes within the bounds that the potentials ask for.

  A potential above 0 says that the lower bound acts, one below 0 the upper, 0 neither. What then is
  missing goes to the columns with the lowest potentials, which turn rows away; what is too much
  comes off those with the highest, which attract them.

  Args:
    counts: Rows that each column is the cheapest for. int32 array of shape ``[K]``.
    potential: Array of shape ``[K]``.
    low: Least rows. int32 array of shape ``[K]``.
    high: Most rows. int32 array of shape ``[K]``.

  Returns:
    int32 array of shape ``[K]`` with the sum of ``counts``.
  """
  total = jnp.sum(counts, dtype=jnp.int32)
  high = jnp.minimum(high, total)
  acting = jnp.where(
    potential > 0, low, jnp.where(potential < 0, high, jnp.clip(counts, low, high))
  )
  # Bounds a row apart are the even sizes; potentials then are free up to a constant.
  wanted = jnp.where(high - low <= 1, low, acting)

  def share(order, room, amount):
    """Gives out an amount, in an order, as far as there is room."""

    def capped(a, b):  # rooms of all columns together may be more than int32 holds
      return jnp.minimum(a + b, amount)

    given = lax.associative_scan(capped, jnp.minimum(room[order], amount))
    return jnp.zeros_like(counts).at[order].set(jnp.diff(given, prepend=0))

  # What is too much comes off the first of the one order: the last of it are served first.
  last_first = jnp.argsort(-potential)[::-1]
  sizes = low + share(last_first, wanted - low, total - jnp.sum(low, dtype=jnp.int32))
  missing = total - jnp.sum(sizes, dtype=jnp.int32)
  return sizes + share(jnp.argsort(potential), high - sizes, missing)


def _cheapest_paths(step, surplus):
  """Cheapest way of handing rows on from the columns with too many to every other one.

  Args:
    step: Cheapest hand-over from row's column to column's column, inf for none. [K, K].
    surplus: int32 [K].

  Returns:
    Costs [K] and the column before on the path, int32 [K], -1 where a path starts.
  """
  num_columns = surplus.shape[0]

  def relax(carry):
    cost, before, rounds, _ = carry
    via, new = first_argmin((cost[:, None] + step).T)
    better = new < cost - ROUNDING
    cost, before = jnp.where(better, new, cost), jnp.where(better, via, before)
    return cost, before, rounds + 1, jnp.any(better)

  start = jnp.where(surplus > 0, 0.0, jnp.inf).astype(step.dtype), jnp.full_like(surplus, -1)
  carry = lax.while_loop(
    lambda carry: carry[3] & (carry[2] < num_columns), relax, (*start, jnp.int32(0), True)
  )
  return carry[:2]


def _hand_on(cost, labels, surplus):
  """Hands rows on along cheapest paths until no column has too many, or none can reach a gap.

  Successive shortest paths on the graph of columns: from labels that are cheapest for each row, the
  result is the cheapest among all labels with its sizes, as far as the given rows go.

  Args:
    cost: Reduced costs; inf in unused rows. [M, K].
    labels: Cheapest columns; -1 in unused rows. int32 [M].
    surplus: Rows too many, negative for too few. int32 [K].

  Returns:
    Labels [M].
  """
  num_columns = surplus.shape[0]
  dtype = cost.dtype
  own = jnp.where(labels >= 0, cost[jnp.arange(len(labels)), labels], 0)  # [M]

  def away(labels, column):
    """0 for the rows of the column, and more than any cost for others; [M]."""
    return jnp.minimum(jnp.abs(labels - column), 1).astype(dtype) * FAR

  def cheapest_steps(labels, own, column):
    steps = jnp.min(cost - own[:, None] + away(labels, column)[:, None], axis=0)
    return jnp.where(steps < FAR / 2, steps, jnp.inf)

  def hand(carry):
    labels, own, step, surplus, before, column, length = carry
    giver = before[column]
    row = jnp.argmin(cost[:, column] - own + away(labels, giver))
    labels = labels.at[row].set(column)
    own = own.at[row].set(cost[row, column])
    step = step.at[column].min(cost[row] - cost[row, column])
    step = step.at[giver].set(cheapest_steps(labels, own, giver))
    surplus = surplus.at[giver].add(-1).at[column].add(1)
    return labels, own, step, surplus, before, giver, length + 1

  def advance(carry):
    labels, own, step, surplus, _ = carry
    path_cost, before = _cheapest_paths(step, surplus)
    gap_cost = jnp.where(surplus < 0, path_cost, jnp.inf)
    end = lax.argmin(gap_cost, 0, jnp.int32)
    reachable = gap_cost[end] < jnp.inf
    before = jnp.where(reachable, before, -1)
    carry = lax.while_loop(
      lambda carry: (carry[4][carry[5]] >= 0) & (carry[6] < num_columns),
      hand,
      (labels, own, step, surplus, before, end, jnp.int32(0)),
    )
    labels, own, step, surplus = carry[:4]
    return labels, own, step, surplus, reachable

  group = jnp.where(labels >= 0, labels, num_columns)
  step = jnp.full((num_columns + 1, num_columns), jnp.inf, dtype).at[group].min(cost - own[:, None])
  carry = labels, own, step[:num_columns], surplus, jnp.any(surplus > 0)
  carry = lax.while_loop(lambda c: c[4] & jnp.any(c[3] > 0), advance, carry)
  return carry[0]


def _gather_movable(fold_costs, potential, labels, movable, size, axis_name):
  """The reduced costs and labels of the movable rows of all shards, and where each row went.

  Args:
    fold_costs: Runs a function over the blocks of rows.
    potential: Array of shape ``[K]``.
    labels: int32 [n].
    movable: bool [n], at most ``size`` over all shards.
    size: Number of rows to make room for.
    axis_name: Mapped axis, or None.

  Returns:
    Costs [size, K], inf where unused; labels [size], -1 where unused; places int32 [n], ``size``
    where a row is not movable.
  """
  num_rows = labels.shape[0]
  place = jnp.cumsum(movable, dtype=jnp.int32) - 1
  if axis_name is not None:
    counts = lax.all_gather(jnp.sum(movable, dtype=jnp.int32), axis_name)
    earlier = jnp.arange(len(counts)) < lax.axis_index(axis_name)
    place += jnp.sum(jnp.where(earlier, counts, 0), dtype=jnp.int32)
  place = jnp.where(movable, place, size)
  nowhere = sharding.varying(jnp.full(size, -1, jnp.int32), axis_name)
  row_of = nowhere.at[place].set(jnp.arange(num_rows, dtype=jnp.int32), mode="drop")  # [size]

  def add(carry, block, cost, weights, start):
    index = row_of - start
    index = jnp.where((row_of >= 0) & (index >= 0) & (index < len(weights)), index, len(weights))
    used = weights.at[index].get(mode="fill", fill_value=0) > 0
    reduced = cost.at[index].get(mode="fill", fill_value=0) - potential
    return carry + jnp.where(used[:, None], reduced, 0)

  zero = jnp.zeros((size, potential.shape[0]), potential.dtype)
  found = jnp.where(row_of >= 0, labels[row_of] + 1, 0)
  cost, found = sharding.psum((fold_costs(add, zero), found), axis_name)
  return jnp.where(found[:, None] > 0, cost, jnp.inf), found - 1, place


def round_to_sizes(
  fold_costs: FoldCosts,
  potential: jax.Array,
  bounds: tuple[jax.Array, jax.Array],
  weights: jax.Array,
  axis_name: str | None,
) -> jax.Array:
  """Assigns each row to a column so that sizes keep their bounds and the cost is small.

  Each row starts at its cheapest column. Of each column the rows that would lose least elsewhere
  are gathered, and of these rows are handed on along cheapest paths of columns until the sizes are
  right, which is optimal where the gathered rows suffice. Anything left, as in data of many equal
  rows, moves in rounds: columns with too many give, and columns with too few take, the rows that
  lose least by going there directly. A round ends the repair or fills a column.

  Args:
    fold_costs: Runs a function over the blocks of rows.
    potential: Column potentials. Array of shape ``[K]``.
    bounds: Least and most rows of each column, int32 arrays of shape ``[K]``.
    weights: 1, or 0 for a padded row. Array of shape ``[n]``.
    axis_name: Mapped axis over which rows are sharded, or None.

  Returns:
    Labels, -1 where the weight is 0. int32 array of shape ``[n]``.
  """
  num_columns = potential.shape[0]
  real = weights > 0

  def nearest(open_columns):
    """Each row's best open column, the reduced cost there, and how much dearer the next one is."""
    reward = jnp.where(open_columns, potential, -jnp.inf)  # [K]

    def add(carry, block, cost, weights, start):
      cost = cost - reward
      index, value = first_argmin(cost)
      margin = jnp.min(cost + own_column(index, num_columns, cost.dtype) * FAR, axis=1) - value
      blocks = zip(carry, (index, value, margin), strict=True)
      return tuple(lax.dynamic_update_slice(all, block, (start,)) for all, block in blocks)

    zero = jnp.zeros_like(weights)
    return fold_costs(add, (jnp.zeros(weights.shape, jnp.int32), zero, zero))

  def count(labels):
    return sharding.psum(jnp.zeros(num_columns, jnp.int32).at[labels].add(real), axis_name)

  def repair(carry):
    labels, values, surplus, rounds = carry
    target, value, _ = nearest(surplus < 0)
    loss = value - values
    give, take = jnp.maximum(surplus, 0), jnp.maximum(-surplus, 0)
    released = select_lowest(loss, labels, real & (give[labels] > 0), give, axis_name=axis_name)
    moved = select_lowest(loss, target, released, take, axis_name=axis_name)
    labels = jnp.where(moved, target, labels)
    return labels, jnp.where(moved, value, values), count(labels) - sizes, rounds + 1

  labels, values, margin = nearest(jnp.ones(num_columns, bool))
  counts = count(labels)
  sizes = target_sizes(counts, potential, *bounds)
  quota = max(MOVABLE_ROWS_PER_COLUMN, MOVABLE_ROWS // num_columns)
  if quota * num_columns**2 <= MOVABLE_TABLE:
    everywhere = jnp.full(num_columns, quota, jnp.int32)
    movable = select_lowest(margin, labels, real, everywhere, axis_name=axis_name)
    cost, group, place = _gather_movable(
      fold_costs, potential, labels, movable, quota * num_columns, axis_name
    )
    group = _hand_on(cost, group, counts - sizes)
    kept = place == len(group)
    labels = jnp.where(kept, labels, group.at[place].get(mode="fill", fill_value=0))
    moved_value = cost[jnp.arange(len(group)), group].at[place].get(mode="fill", fill_value=0)
    values = jnp.where(kept, values, moved_value)
  carry = labels, values, count(labels) - sizes, jnp.int32(0)
  labels = lax.while_loop(
    lambda carry: jnp.any(carry[2] > 0) & (carry[3] < num_columns), repair, carry
  )[0]
  return jnp.where(real, labels, -1)
