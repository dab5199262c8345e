"""Hamming distances of packed codes, and the exact nearest neighbours by them."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax.arrays import Array, jax_or_numpy
from udh_jax.coding.binary import require_packed
from udh_jax.cpu import choice
from udh_jax.cpu.widths import MOST_BYTES, distance_dtype
from udh_jax.errors import (
  InputError,
  is_traced,
  require,
  require_automatic,
  require_outside,
  whole_number,
)

MOST_ITEMS = 2**31 - 1  # of a database, whose indices are int32
NO_NEIGHBOUR = -1  # index that `search` returns where too few items are valid

_CHUNK = 2**24  # distances held at once
_BLOCK = 32  # items whose hits are one word


class Neighbours(NamedTuple):
  """The nearest database items of each query, nearest first, ties by database index.

  Attributes:
    distances: Hamming distances. int32 array of shape ``[q, k]``.
    indices: Positions in the database. int32 array of shape ``[q, k]``.
  """

  distances: Array
  indices: Array


class RadiusHits(NamedTuple):
  """What lies within a radius of each query, nearest first, ties by database index.

  Query i has the places ``starts[i]`` to ``starts[i + 1]`` of the other two.

  Attributes:
    starts: int64 array of shape ``[q + 1]``.
    distances: Hamming distances. int32 array of shape ``[m]``.
    indices: Positions in the database. int32 array of shape ``[m]``.
  """

  starts: np.ndarray
  distances: np.ndarray
  indices: np.ndarray


class TooManyHitsError(InputError):
  """More lies within the radius than was to be held."""


def hamming_distance(queries: Array, database: Array) -> jax.Array:
  """All distances between two sets of packed codes.

  Padding bits are equal on both sides, so they never count.

  Args:
    queries: uint8 array of shape ``[q, bytes]``, from `pack_codes`.
    database: uint8 array of shape ``[n, bytes]``.

  Returns:
    int32 array of shape ``[q, n]``. It is the caller's to keep it small: `search` and the metrics
    never hold it whole.

  Raises:
    InputError: If an argument is not uint8, the widths differ or are beyond 8,191 bytes.

  References:
    The definition: the number of bits that differ.
  """
  queries, database = checked_codes("hamming_distance", queries, database)
  return _distance(queries, database)


def search(
  queries: Array,
  database: Array,
  k: int,
  *,
  valid: Array | None = None,
  axis_name: str | None = None,
) -> Neighbours:
  """The k nearest database items of each query: exact, ties by database index.

  Distances are small integers, so nothing of the database's size is sorted: the k-th distance is
  found by counting, the k items are picked by it in the order of their index, and only those are
  sorted. Queries are taken in chunks, so that at most 2^24 distances (or those of one query) of one
  or two bytes are held at once. On a CPU outside a trace `udh_jax.cpu.neighbours` gives the same,
  several times as fast.

  Args:
    queries: uint8 array of shape ``[q, bytes]``, from `pack_codes`. The same on every shard.
    database: This device's rows. uint8 array of shape ``[n, bytes]``. A JAX array is searched where
      it lies.
    k: Number of neighbours, 1 to the size of the whole database.
    valid: False masks a row of the database (padding). bool array of shape ``[n]``; None means all
      are valid. Under a trace it is the caller's duty that at least k are valid; a place that no
      valid item fills has index -1 (`NO_NEIGHBOUR`) and distance 8 * bytes + 1.
    axis_name: Mapped axis over which the database is sharded; None means one device. Indices then
      count through the shards in order: shard * n + row. What is found is the same on every shard,
      which `jax.shard_map` cannot see by itself: map with ``check_vma=False``.

  Returns:
    Distances and indices, a `Neighbours`, which unpacks to the two.

  Raises:
    InputError: If a dtype or shape is wrong, the widths differ or are beyond 8,191 bytes, or k is
      larger than the database.

  References:
    Our own definition of the order among ties.
  """
  queries, database = checked_codes("search", queries, database)
  k, valid = checked_request("search", k, database, valid, axis_name)
  if axis_name is None and choice.use_numba(queries, database, valid):
    return _search_on_cpu(np.asarray(queries), np.asarray(database), valid, k)
  if axis_name is not None or is_traced(queries, database, valid) or not len(queries):
    return _search(queries, database, valid, k=k, axis_name=axis_name)
  wider = min(1 << (k - 1).bit_length(), len(database))
  padded = np.resize(np.arange(len(queries)), _of_few_sizes(len(queries)))
  found = _search(queries[padded], database, valid, k=wider, axis_name=None)
  return Neighbours(*(part[: len(queries), :k] for part in found))


def _of_few_sizes(count: int) -> int:
  """So many queries, or up to an eighth more, of few up to twice: few programs are compiled."""
  power = 1 << (count - 1).bit_length()
  step = max(1, power // 16)
  return power if count <= 16 else -(-count // step) * step


def _search_on_cpu(queries, database, valid, k):
  from udh_jax.cpu import neighbours

  kept = None if valid is None else np.flatnonzero(valid).astype(np.int32)
  database = database if kept is None else database[kept]
  distances, indices = neighbours.nearest(queries, database, k)
  return Neighbours(jnp.asarray(distances), jnp.asarray(indices if kept is None else kept[indices]))


def radius_search(
  queries: Array, database: Array, radius: int, *, most: int | None = None
) -> RadiusHits:
  """All database items within a Hamming radius of each query: exact, ties by database index.

  On an accelerator items within the radius are counted first; then as many nearest ones are
  searched, with queries of like counts together, in the chunks of `search`.

  Args:
    queries: uint8 array of shape ``[q, bytes]``, from `pack_codes`. None is allowed.
    database: uint8 array of shape ``[n, bytes]``; n may be 0. A JAX array is searched where it
      lies.
    radius: Largest distance, 0 or more.
    most: How many hits all queries together may have; they are counted before they are held.

  Returns:
    The hits of all queries, a `RadiusHits` of NumPy arrays.

  Raises:
    TooManyHitsError: If there are more than ``most``.
    InputError: If a dtype or shape is wrong, the widths differ or are beyond 8,191 bytes, or the
      radius is negative.

  References:
    Our own definition of the order among ties.
  """
  require_outside("radius_search", queries, database)
  queries, database = checked_codes("radius_search", queries, database)
  radius = whole_number("radius_search: radius", radius)
  require(radius >= 0, f"radius_search: radius is {radius}, expected 0 or more.")

  def check(total: int) -> None:
    if most is not None and total > most:
      raise TooManyHitsError(
        f"radius_search: {total:,} items lie within {radius} of {len(queries):,} queries, most is "
        f"{most:,}; give fewer queries at once, or a smaller radius."
      )

  if choice.use_numba(queries, database):
    from udh_jax.cpu import neighbours

    return RadiusHits(*neighbours.within(np.asarray(queries), np.asarray(database), radius, check))
  counts = np.zeros(len(queries), np.int64)
  if counts.size and len(database):
    counts[:] = _count_within(queries, database, min(radius, 8 * queries.shape[1]))
  starts = np.concatenate([np.zeros(1, np.int64), counts.cumsum()])
  check(int(starts[-1]))
  found = np.empty((2, starts[-1]), np.int32)
  # One k for all counts up to a power of two, so that few programs are compiled.
  sizes = np.minimum(1 << np.ceil(np.log2(np.maximum(counts, 1))).astype(np.int64), len(database))
  for k in np.unique(sizes[counts > 0]).tolist():
    rows = np.flatnonzero((sizes == k) & (counts > 0))
    at_once = max(1, _CHUNK // max(k, _BLOCK))
    for some in (rows[start : start + at_once] for start in range(0, len(rows), at_once)):
      padded = np.resize(some, 1 << (len(some) - 1).bit_length())
      nearest = _search(queries[padded], database, None, k=k, axis_name=None)
      inside = np.arange(k) < counts[some, None]
      places = (starts[some, None] + np.arange(k))[inside]
      for out, values in zip(found, nearest, strict=True):
        out[places] = np.asarray(values)[: len(some)][inside]
  return RadiusHits(starts, *found)


def checked_request(
  name: str, k: int, database: Array, valid: Array | None, axis_name: str | None
) -> tuple[int, Array | None]:
  """How many neighbours are asked for, and which rows of a database count.

  Args:
    name: The caller's name, for the message.
    k: As of `search`.
    database: Packed codes, this device's rows.
    valid: As of `search`.
    axis_name: As of `search`.

  Returns:
    k, and ``valid`` as an array, if there is one.

  Raises:
    InputError: If the database is empty or beyond `MOST_ITEMS`, ``valid`` is no such array, or k is
      out of range.
  """
  k = whole_number(f"{name}: k", k)
  require(len(database) >= 1, f"{name}: the database is empty (shape {database.shape}).")
  shards = 1 if axis_name is None else lax.axis_size(axis_name)
  num_items = shards * len(database)
  _require_countable(name, num_items)
  if valid is not None:
    valid = valid if isinstance(valid, jax.Array) else np.asarray(valid)
    require(
      valid.shape == database.shape[:1] and valid.dtype == np.bool_,
      f"{name}: valid is {valid.dtype} of shape {valid.shape}, expected bool [{len(database)}], "
      "one for each database item.",
    )
    if not is_traced(valid) and axis_name is None:
      num_items = int(valid.sum())
  require(
    1 <= k <= num_items,
    f"{name}: k is {k}, expected 1 to {num_items}, the number of database items.",
  )
  return k, valid


def checked_codes(name: str, queries: Array, database: Array) -> tuple[Array, Array]:
  """Two sets of packed codes of one width, as arrays.

  Args:
    name: The caller's name, for the message.
    queries: uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.

  Returns:
    Both, JAX arrays as they are and anything else as NumPy arrays.

  Raises:
    InputError: If an argument is not uint8, the widths differ or are beyond `MOST_BYTES`, or the
      database is beyond `MOST_ITEMS`.
  """
  queries, database = jax_or_numpy(queries), jax_or_numpy(database)
  require_automatic(name, queries, database)
  require_packed(f"{name}: queries", queries)
  require_packed(f"{name}: database", database)
  require(
    queries.shape[1] == database.shape[1],
    f"{name}: queries have shape {queries.shape} and database {database.shape}; the codes differ "
    "in width, give both the same number of bits.",
  )
  require(
    queries.shape[1] <= MOST_BYTES,
    f"{name}: the codes have {queries.shape[1]:,} bytes, expected at most {MOST_BYTES:,} "
    f"({8 * MOST_BYTES:,} bits); make shorter codes.",
  )
  _require_countable(name, len(database))
  return queries, database


def _require_countable(name: str, num_items: int) -> None:
  require(
    num_items <= MOST_ITEMS,
    f"{name}: the database has {num_items:,} items, expected at most {MOST_ITEMS:,}, which indices "
    "of 32 bits count; search parts of it and join what they find.",
  )


def as_words(packed: jax.Array) -> jax.Array:
  """Groups bytes by four: uint8 ``[n, bytes]`` to uint32 ``[n, ceil(bytes / 4)]``, zero padded."""
  packed = jnp.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
  words = packed.reshape(packed.shape[0], packed.shape[1] // 4, 4)
  return lax.bitcast_convert_type(words, jnp.uint32)


def as_long_words(packed: np.ndarray) -> np.ndarray:
  """Groups bytes by eight: uint8 ``[n, bytes]`` to uint64 ``[n, ceil(bytes / 8)]``, zero padded."""
  return np.pad(packed, ((0, 0), (0, -packed.shape[1] % 8))).view(np.uint64)


def word_distance(queries: jax.Array, database: jax.Array, dtype: jnp.dtype) -> jax.Array:
  """Distances of codes given as words: uint32 ``[q, w]`` and ``[n, w]`` to ``[q, n]``."""
  total = jnp.zeros((), jnp.uint32)
  for word in range(queries.shape[1]):
    total += lax.population_count(queries[:, word, None] ^ database[None, :, word])
  return total.astype(dtype)


@jax.jit
def _distance(queries, database):
  return word_distance(as_words(queries), as_words(database), jnp.int32)


@jax.jit
def _count_within(queries, database, radius):
  """Items within a radius of each query, int32 ``[q]``, at most 2^24 distances at once."""
  num_queries, n = len(queries), len(database)
  words, dtype = as_words(database), distance_dtype(queries.shape[1])

  def count(chunk):
    return jnp.sum(word_distance(chunk, words, dtype) <= radius.astype(dtype), 1, dtype=jnp.int32)

  size = max(1, min(num_queries, _CHUNK // n))
  chunks = jnp.pad(as_words(queries), ((0, -num_queries % size), (0, 0)))
  return lax.map(count, chunks.reshape(-1, size, chunks.shape[1])).reshape(-1)[:num_queries]


@functools.partial(jax.jit, static_argnames=("k", "axis_name"))
def _search(queries, database, valid, *, k, axis_name):
  num_queries, num_bytes = queries.shape
  n = database.shape[0]
  far = 8 * num_bytes + 1
  if num_queries == 0:
    empty = jnp.zeros((0, k), jnp.int32)
    return Neighbours(empty, empty)

  # Pad the database to whole blocks, and to k items where a shard is smaller than that.
  padding = max(k - n, 0)
  padding += -(n + padding) % _BLOCK
  valid = jnp.ones(n, bool) if valid is None else valid
  valid = jnp.pad(valid, (0, padding))
  words = jnp.pad(as_words(database), ((0, padding), (0, 0)))

  def nearest(chunk):
    distances = word_distance(chunk, words, distance_dtype(num_bytes))  # [chunk, n']
    return _smallest(jnp.where(valid, distances, far), k, far)

  chunk_size = max(1, min(num_queries, _CHUNK // words.shape[0]))
  num_chunks = -(-num_queries // chunk_size)
  chunks = jnp.pad(as_words(queries), ((0, num_chunks * chunk_size - num_queries), (0, 0)))
  distances, indices = lax.map(nearest, chunks.reshape(num_chunks, chunk_size, -1))
  distances = distances.reshape(-1, k)[:num_queries]  # [q, k]
  indices = indices.reshape(-1, k)[:num_queries]

  if axis_name is not None:
    indices += lax.axis_index(axis_name) * n
    # Shards come in the order of their indices, so that a stable sort keeps ties by index.
    distances = lax.all_gather(distances, axis_name, axis=1, tiled=True)  # [q, shards * k]
    indices = lax.all_gather(indices, axis_name, axis=1, tiled=True)
    distances, indices = lax.sort((distances, indices), num_keys=1, is_stable=True)
    distances, indices = distances[:, :k], indices[:, :k]
  indices = jnp.where(distances < far, indices, NO_NEIGHBOUR)
  return Neighbours(distances.astype(jnp.int32), indices.astype(jnp.int32))


def _smallest(distances, k, far):
  """The k smallest of [q, n] integers in 0..far with their columns, ties by column."""
  num_rows, n = distances.shape
  dtype = distances.dtype
  blocks = distances.reshape(num_rows, n // _BLOCK, _BLOCK)

  # Bisect for the k-th distance by counting. Sums of a block fit a byte, and XLA's CPU backend adds
  # bytes ten times as fast as it widens them.
  low = jnp.zeros((num_rows, 1), jnp.int32)
  high = jnp.full((num_rows, 1), far, jnp.int32)
  for _ in range(far.bit_length()):
    middle = (low + high) // 2
    hits = (
      (blocks <= middle[..., None].astype(dtype)).astype(jnp.uint8).sum(axis=2, dtype=jnp.uint8)
    )
    enough = hits.sum(axis=1, keepdims=True, dtype=jnp.int32) >= k
    low, high = jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)
  last = low[..., None].astype(dtype)  # [q, 1, 1]

  # Take everything nearer than that, and of the ties at it the first ones by index. A block of hits
  # is one word, so that finding the place of a hit costs a few operations on words.
  nearer, ties = _bits(blocks < last), _bits(blocks == last)  # [q, blocks]
  nearer_ends = jnp.cumsum(lax.population_count(nearer).astype(jnp.int32), axis=1)
  tie_ends = jnp.cumsum(lax.population_count(ties).astype(jnp.int32), axis=1)
  wanted_ties = k - nearer_ends[:, -1:]  # [q, 1]
  ends = nearer_ends + jnp.minimum(tie_ends, wanted_ties)  # hits up to the end of each block
  slots = jnp.arange(k)
  block = jax.vmap(lambda row: jnp.searchsorted(row, slots, side="right"))(ends)  # [q, k]

  def pick(array):
    return jnp.take_along_axis(array, block, axis=1)

  def before(ends):
    return pick(jnp.pad(ends, ((0, 0), (1, 0))))

  first_ties = _first_bits(pick(ties), wanted_ties - before(tie_ends))
  place = _nth_bit(pick(nearer) | first_ties, slots - before(ends))
  columns = block.astype(jnp.int32) * _BLOCK + place
  found = jnp.take_along_axis(distances, columns, axis=1).astype(jnp.int32)

  # Columns already ascend: sorted by distance and slot, ties keep their order. XLA's CPU backend
  # sorts one array six times as fast as a key with a payload.
  if (far + 1) * k < 2**31:
    keys = lax.sort(found * k + slots)
    return keys // k, jnp.take_along_axis(columns, keys % k, axis=1)
  return lax.sort((found, columns), num_keys=1, is_stable=True)


def _bits(hits):
  """Packs the last axis of booleans [..., 32] to one uint32, the first lowest."""
  return jnp.sum(
    hits.astype(jnp.uint32) << jnp.arange(_BLOCK, dtype=jnp.uint32), axis=-1, dtype=jnp.uint32
  )


def _nth_bit(words, n):
  """Position of the n-th set bit from below, from 0; 31 where there are too few."""
  position = jnp.zeros_like(n)
  for width in (16, 8, 4, 2, 1):
    count = lax.population_count(words & ((1 << width) - 1)).astype(n.dtype)
    above = n >= count
    n = jnp.where(above, n - count, n)
    words = jnp.where(above, words >> width, words)
    position += jnp.where(above, width, 0)
  return position


def _first_bits(words, n):
  """Keeps the lowest n set bits, all of them if there are fewer."""
  below = (jnp.uint32(1) << _nth_bit(words, n).astype(jnp.uint32)) - 1
  return jnp.where(n >= lax.population_count(words).astype(n.dtype), words, words & below)
