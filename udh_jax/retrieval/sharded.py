"""Counts and ranks of pairs on devices, with the database split over them."""

import functools
from typing import NamedTuple

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
  most = ((1 << 32) - 1 >> max_gain.bit_length()) // num_distances  # places that a key has room for
  form = _Form(max(1, min(_ITEMS, num_items, most)), num_distances, max_gain)
  chunk = max(1, min(num_queries, _CHUNK // form.block))
  blocks = tuple(_grouped(array, form.block) for array in (database, database_marks, valid))

  def run(query):
    mine = _count(query, blocks, form, axis_name)
    totals = sharding.psum(mine, axis_name)
    if not by_index:
      return totals
    starts = (
      jnp.cumsum(total, axis=1, dtype=jnp.int32) - total + _earlier(own, axis_name)
      for total, own in zip(totals[:2], mine[:2], strict=True)
    )
    sums = _rank(query, blocks, form, tuple(starts), cuts, axis_name)
    return (*totals, *sharding.psum(sums, axis_name))

  found = lax.map(run, (_grouped(queries, chunk), _grouped(query_marks, chunk)))
  return tuple(a.reshape(-1, *a.shape[2:])[:num_queries] for a in found)


class _Form(NamedTuple):
  """How a pair is written in 32 bits, so that keys sort by it: distance, place in the block, gain.

  Attributes:
    block: Items of a block.
    num_distances: See `Pairs`.
    max_gain: See `Pairs`.
  """

  block: int
  num_distances: int
  max_gain: int

  @property
  def gain_bits(self) -> int:
    return self.max_gain.bit_length()

  def key(self, distance: jax.Array | int, place: jax.Array | int) -> jax.Array:
    """The least key of a distance and a place."""
    return (jnp.uint32(distance) * self.block + place) << self.gain_bits


class _Ordered(NamedTuple):
  """The items of a block, nearest first, for each query of a chunk.

  Attributes:
    distances: Of ``num_distances`` and more where an item is masked. ``[chunk, block]``.
    gains: 0 where one is not relevant or masked. ``[chunk, block]``.
    starts: Where each distance begins, and the last one ends. ``[chunk, num_distances + 1]``.
    before: Relevant ones before each place. ``[chunk, block + 1]``.
  """

  distances: jax.Array
  gains: jax.Array
  starts: jax.Array
  before: jax.Array


def _order(query, items, form: _Form) -> _Ordered:
  """Puts a block in order: codes, marks, and which rows count."""
  codes, marks = query
  words, item_marks, counts = items
  gain_bits, gain_mask = form.gain_bits, (1 << form.gain_bits) - 1
  keys = keys_of(codes, words, marks, item_marks, gain_bits=gain_bits, dtype=jnp.uint32)
  places = jnp.arange(form.block, dtype=jnp.uint32)
  keys = form.key(keys >> gain_bits, places) | (keys & gain_mask)
  last = form.key(form.num_distances, 0)  # after all distances
  keys = jnp.sort(jnp.where(counts, keys, last), axis=1)
  bounds = form.key(jnp.arange(form.num_distances + 1), 0)
  starts = jax.vmap(lambda row: jnp.searchsorted(row, bounds))(keys)
  gains = jnp.where(keys < last, keys & gain_mask, 0).astype(jnp.int32)
  return _Ordered((keys >> gain_bits) // form.block, gains, starts, _running(gains > 0))


def _running(values: jax.Array) -> jax.Array:
  """Sums of what stands before each place of ``[chunk, block]``, and of all of it."""
  return jnp.pad(jnp.cumsum(values, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))


def _by_distance(running: jax.Array, starts: jax.Array) -> jax.Array:
  """Sums at each distance: ``[chunk, num_distances]``."""
  return jnp.diff(jnp.take_along_axis(running, starts, axis=1), axis=1)


def _count(query, blocks, form: _Form, axis_name: str | None) -> tuple[jax.Array, ...]:
  """The counts of a `Profile`, of this device's rows."""

  def add(totals, items):
    _, gains, starts, before = _order(query, items, form)
    by_gain = jnp.stack([(gains == g).sum(axis=1) for g in range(1, form.max_gain + 1)], axis=1)
    none = items[2].sum() - by_gain.sum(axis=1, keepdims=True)
    values = (
      jnp.diff(starts, axis=1),
      _by_distance(before, starts),
      _by_distance(_running(gains), starts),
      jnp.concatenate([none, by_gain], axis=1),
    )
    return jax.tree.map(lambda a, b: a + b.astype(jnp.int32), totals, values), None

  widths = (form.num_distances,) * 3 + (form.max_gain + 1,)
  zeros = tuple(jnp.zeros((len(query[0]), width), jnp.int32) for width in widths)
  return lax.scan(add, sharding.varying(zeros, axis_name), blocks)[0]


def _rank(
  query, blocks, form: _Form, start: tuple[jax.Array, jax.Array], cuts, axis_name: str | None
) -> jax.Array:
  """The sums of a `Profile` that this device's rows add.

  ``start`` has how many items, and how many relevant ones, come before this device's first of each
  distance.
  """

  def add(carry, items):
    (place, found), sums = carry
    distances, gains, starts, before = _order(query, items, form)
    index = jnp.minimum(distances, form.num_distances - 1).astype(jnp.int32)

    def at(values):
      return jnp.take_along_axis(values, index, axis=1)

    ranks = jnp.arange(form.block, dtype=jnp.int32) - at(starts) + at(place) + 1
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
    found = found + _by_distance(before, starts)
    return ((place, found), sums + jnp.stack(new, axis=2)), None

  zeros = jnp.zeros((3, len(query[0]), len(cuts)), jnp.float32)
  return lax.scan(add, sharding.varying((start, zeros), axis_name), blocks)[0][1]


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
