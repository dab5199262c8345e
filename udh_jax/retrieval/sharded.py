"""Counts and ranks of pairs on devices, with the database split over them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from udh_jax import sharding
from udh_jax.retrieval.profile import Pairs, Profile, keys_of

_CHUNK = 2**22  # pairs put in order at once on a device
_ITEMS = 2**14  # database items of one query among them, at most


def profile_on_devices(
  pairs: Pairs, cuts: tuple[int, ...], mesh: Mesh, *, by_index: bool
) -> Profile:
  """As `udh_jax.retrieval.profile.profile`, with the database split over the devices of ``mesh``.

  Counts are the same; sums of precisions and gains are made in float32.

  Args:
    pairs: The same in every process.
    cuts: Cut-offs, ascending, from 1 to the size of the database.
    mesh: Devices with one axis.
    by_index: Whether to rank items at equal distance by index.

  Returns:
    The profile, in every process.
  """
  queries, database, query_marks, database_marks = map(np.asarray, pairs.as_words())
  rows = database, database_marks, np.ones(len(database), bool)
  mapped = _mapped(mesh, cuts, pairs.num_distances, pairs.max_gain, by_index, _CHUNK, _ITEMS)
  found = mapped(
    queries,
    query_marks,
    *(sharding.split_rows(mesh, array) for array in rows),
  )
  items, relevant, gains, levels, *sums = (np.asarray(array) for array in found)
  if not by_index:
    sums = [np.zeros((len(items), 0))] * 3
  counts = (array.astype(np.int64) for array in (items, relevant, gains, levels))
  return Profile(*counts, *(array.astype(np.float64) for array in sums))


@functools.lru_cache(maxsize=16)
def _mapped(mesh, cuts, num_distances, max_gain, by_index, *sizes):
  """`count_and_rank` over the devices, compiled once for all codes of one kind."""
  del sizes  # of chunks, which decide what is compiled
  (axis,) = mesh.axis_names
  kernel = functools.partial(
    count_and_rank,
    cuts=cuts,
    num_distances=num_distances,
    max_gain=max_gain,
    by_index=by_index,
    axis_name=axis,
  )
  rows, whole = PartitionSpec(axis), PartitionSpec()
  return jax.jit(
    jax.shard_map(kernel, mesh=mesh, in_specs=(whole, whole, rows, rows, rows), out_specs=whole)
  )


def count_and_rank(
  queries: jax.Array,
  query_marks: jax.Array,
  database: jax.Array,
  database_marks: jax.Array,
  valid: jax.Array,
  *,
  cuts: tuple[int, ...],
  num_distances: int,
  max_gain: int,
  by_index: bool = True,
  axis_name: str | None = None,
) -> tuple[jax.Array, ...]:
  """The fields of a `Profile`, of a database of which this device holds some rows.

  The pairs of a chunk of queries and a block of items are sorted by distance and index, twice over
  the database: once to count, once to rank. No more than 2^22 pairs are held.

  Args:
    queries: Codes as words, the same on every device. uint32 array of shape ``[q, words]``.
    query_marks: See `Pairs`.
    database: This device's rows. uint32 array of shape ``[n, words]``.
    database_marks: Theirs.
    valid: False masks a row (padding). bool array of shape ``[n]``.
    cuts: Cut-offs. Static.
    num_distances: See `Pairs`. Static.
    max_gain: See `Pairs`. Static.
    by_index: Whether to rank; without it the last three fields are left out. Static.
    axis_name: Mapped axis over which the database is split, in the order of its index; None means
      one device.

  Returns:
    The fields, over the whole database: int32 counts and float32 sums.

  References:
    Our own.
  """
  num_queries, num_items = queries.shape[0], database.shape[0]
  gain_bits = max_gain.bit_length()
  # A key is distance, place and gain in 32 bits.
  block = max(1, min(_ITEMS, num_items, ((1 << 32) - 1 >> gain_bits) // num_distances))
  chunk = max(1, min(num_queries, _CHUNK // block))
  blocks = tuple(_grouped(array, block) for array in (database, database_marks, valid))

  def ordered(query, items):
    """Distances and gains of a block in order, where each distance begins, and relevant before."""
    codes, marks = query
    words, item_marks, counts = items
    keys = keys_of(codes, words, marks, item_marks, gain_bits=gain_bits, dtype=jnp.uint32)
    place = jnp.arange(block, dtype=jnp.uint32)
    keys = (((keys >> gain_bits) * block + place) << gain_bits) | (keys & ((1 << gain_bits) - 1))
    last = jnp.uint32((num_distances * block) << gain_bits)  # after all distances
    keys = jnp.sort(jnp.where(counts, keys, last), axis=1)  # [chunk, block]
    bounds = (jnp.arange(num_distances + 1, dtype=jnp.uint32) * block) << gain_bits
    starts = jax.vmap(lambda row: jnp.searchsorted(row, bounds))(keys)  # [chunk, distances + 1]
    gains = jnp.where(keys < last, keys & ((1 << gain_bits) - 1), 0).astype(jnp.int32)
    before = jnp.pad(
      jnp.cumsum(gains > 0, axis=1, dtype=jnp.int32), ((0, 0), (1, 0))
    )  # [chunk, block + 1]
    return (keys >> gain_bits) // block, gains, starts, before

  def differences(cumulative, starts):
    return jnp.diff(jnp.take_along_axis(cumulative, starts, axis=1), axis=1)

  def count(query):
    def add(totals, items):
      _, gains, starts, before = ordered(query, items)
      gained = jnp.pad(jnp.cumsum(gains, axis=1), ((0, 0), (1, 0)))
      by_gain = jnp.stack([(gains == g).sum(axis=1) for g in range(1, max_gain + 1)], axis=1)
      none = items[2].sum() - by_gain.sum(axis=1, keepdims=True)
      values = (
        jnp.diff(starts, axis=1),
        differences(before, starts),
        differences(gained, starts),
        jnp.concatenate([none, by_gain], axis=1),
      )
      return jax.tree.map(lambda a, b: a + b.astype(jnp.int32), totals, values), None

    shapes = (num_distances,) * 3 + (max_gain + 1,)
    zeros = tuple(jnp.zeros((chunk, width), jnp.int32) for width in shapes)
    return lax.scan(add, sharding.varying(zeros, axis_name), blocks)[0]

  def rank(query, totals, offsets):
    ends = tuple(jnp.cumsum(total, axis=1, dtype=jnp.int32) - total for total in totals)
    start = tuple(end + offset for end, offset in zip(ends, offsets, strict=True))

    def add(carry, items):
      (place, found), sums = carry
      distance, gains, starts, before = ordered(query, items)
      index = jnp.minimum(distance, num_distances - 1).astype(jnp.int32)

      def at(values):
        return jnp.take_along_axis(values, index, axis=1)

      ranks = jnp.arange(block, dtype=jnp.int32) - at(starts) + at(place) + 1
      hits_before = jnp.take_along_axis(before, starts, axis=1)
      among = before[:, 1:] - at(hits_before) + at(found)  # relevant ones up to and with this one
      relevant = gains > 0
      values = jnp.stack(
        [
          jnp.where(relevant, jnp.float32(among) / jnp.float32(ranks), 0),
          relevant.astype(jnp.float32),
          gains / jnp.log2(jnp.float32(ranks) + 1),
        ]
      )
      new = [(values * (relevant & (ranks <= cut))).sum(axis=2) for cut in cuts]
      place = place + jnp.diff(starts, axis=1)
      found = found + differences(before, starts)
      return ((place, found), sums + jnp.stack(new, axis=2)), None

    zeros = jnp.zeros((3, chunk, len(cuts)), jnp.float32)
    return lax.scan(add, sharding.varying((start, zeros), axis_name), blocks)[0][1]

  def run(query):
    mine = count(query)
    totals = sharding.psum(mine, axis_name)
    if not by_index:
      return totals
    offsets = tuple(_earlier(array, axis_name) for array in mine[:2])
    sums = rank(query, totals[:2], offsets)
    return (*totals, *sharding.psum(sums, axis_name))

  found = lax.map(run, (_grouped(queries, chunk), _grouped(query_marks, chunk)))
  return tuple(a.reshape(-1, *a.shape[2:])[:num_queries] for a in found)


def _grouped(array: jax.Array, size: int) -> jax.Array:
  """Rows ``[n, ...]`` in groups ``[g, size, ...]``, the last one filled up with zeros."""
  padded = jnp.pad(array, [(0, -len(array) % size)] + [(0, 0)] * (array.ndim - 1))
  return padded.reshape(-1, size, *array.shape[1:])


def _earlier(array: jax.Array, axis_name: str | None) -> jax.Array:
  """Sum over the shards before this one."""
  if axis_name is None:
    return jnp.zeros_like(array)
  everyone = lax.all_gather(array, axis_name)
  before = jnp.arange(everyone.shape[0]) < lax.axis_index(axis_name)
  return jnp.tensordot(before.astype(array.dtype), everyone, axes=1)
