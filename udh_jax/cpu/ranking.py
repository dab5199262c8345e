"""Counts and ranks of all pairs of query and item, on the CPU."""

import numpy as np

from udh_jax.cpu.compiled import compiled, fixed, popcount, run_in_threads, split, trailing_zeros
from udh_jax.cpu.distances import (
  BLOCK,
  block_distances,
  empty_tile,
  prepared,
  turn,
)
from udh_jax.cpu.neighbours import mark_below
from udh_jax.cpu.widths import distance_dtype

_QUERIES = 128  # that share the turning of a tile
_PLACES = 2**23  # ranked places of those queries, at most
_COPIES = 4  # of each counter, so that equal pairs in a row need not wait for each other
_COPIED = 1024  # counters of which copies are kept; more would not stay in a near cache


def counted(
  queries: np.ndarray,
  database: np.ndarray,
  query_marks: np.ndarray,
  database_marks: np.ndarray,
  *,
  max_gain: int,
) -> np.ndarray:
  """Items by their distance to a query and by the number of labels that they share with it.

  Args:
    queries: uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_marks: Classes, integers ``[q]``, or multi-hot labels as bits, uint64 ``[q, words]``.
    database_marks: The same for the database.
    max_gain: The most labels that two items can share.

  Returns:
    int64 array of shape ``[q, distances, max_gain + 1]``.
  """
  num_keys = (8 * queries.shape[1] + 1) * (max_gain + 1)
  counts = np.empty((len(queries), num_keys), np.int64)

  def count(low, high, *inputs):
    copies = _COPIES if num_keys <= _COPIED else 1
    found = np.zeros((high - low, copies, num_keys), np.int32)
    _count(*inputs, max_gain, np.empty(BLOCK, np.uint32), found)
    counts[low:high] = found.sum(axis=1)

  _over_queries(count, queries, database, query_marks, database_marks, _QUERIES)
  return counts.reshape(len(queries), -1, max_gain + 1)


def ranked(
  queries: np.ndarray,
  database: np.ndarray,
  query_marks: np.ndarray,
  database_marks: np.ndarray,
  items: np.ndarray,
  relevant: np.ndarray,
  *,
  max_gain: int,
  cuts: np.ndarray,
  discounts: np.ndarray,
) -> np.ndarray:
  """Sums over the relevant items within each cut-off, items at equal distance by index.

  Where each distance begins in the ranking is known, among all items and among relevant ones. So
  items that are read by index get their rank by counting on, and relevant ones their place among
  relevant ones, where rank and gain are written; then they are read in that order.

  Args:
    queries: As of `counted`.
    database: As there.
    query_marks: As there.
    database_marks: As there.
    items: Items at each distance. Integer array of shape ``[q, distances]``.
    relevant: Relevant items at each distance. Integer array of shape ``[q, distances]``.
    max_gain: As there.
    cuts: Cut-offs, ascending, from 1 to the number of items. Integer array.
    discounts: Weight of each rank up to the largest cut-off. float64 array.

  Returns:
    float64 array of shape ``[3, q, cuts]``: precisions at the ranks of relevant items, relevant
    items, discounted gains; each added up.
  """
  del max_gain  # which only counting needs
  cuts, discounts = fixed(np.asarray(cuts, np.int64)), fixed(discounts)
  largest = int(cuts[-1])
  ends = items.cumsum(axis=1)
  places, found = ends - items, relevant.cumsum(axis=1) - relevant
  last = (ends < largest).sum(axis=1)  # the distance at which the cut-off falls
  sums = np.empty((len(queries), 3, len(cuts)))
  room = max(1, min(largest, int(relevant.sum(axis=1).max())))

  def rank(low, high, *inputs):
    ranks, gains = (np.empty((high - low, room), kind) for kind in (np.int32, np.uint16))
    starts = np.stack([places[low:high], found[low:high]], axis=1)  # [q, 2, distances]
    _rank(
      *inputs, largest, fixed(last[low:high]), starts, ranks, gains, cuts, discounts, sums[low:high]
    )

  _over_queries(
    rank,
    queries,
    database,
    query_marks,
    database_marks,
    max(1, min(_QUERIES, _PLACES // room)),
  )
  return sums.transpose(1, 0, 2)


def _over_queries(function, queries, database, query_marks, database_marks, most):
  """Runs a kernel over ranges of at most so many queries, in threads."""
  num_bytes = database.shape[1]
  queries, rows = fixed(queries), fixed(database).reshape(-1)
  classes = query_marks.ndim == 1
  # Marks are turned too, [words, q] and [words, n]. A class is one word, of a byte where it fits.
  kind = np.uint64
  if classes and max(query_marks.max(), database_marks.max()) < 254:
    kind = np.uint8  # -1 and -2, which stand for none, are 255 and 254
  query_marks, database_marks = (
    fixed(np.atleast_2d(marks.T).astype(kind)) for marks in (query_marks, database_marks)
  )

  def run(low, high):
    tile = empty_tile(num_bytes)
    function(
      low,
      high,
      prepared(queries[low:high]),
      rows,
      fixed(query_marks[:, low:high]),
      database_marks,
      classes,
      num_bytes,
      tile,
      tile.view(np.uint8),
      np.empty(BLOCK, distance_dtype(num_bytes)),
    )

  run_in_threads(run, split(len(queries), most))


@compiled()
def _block_gains(query_marks, query, marks, first, count, classes, out):
  """Labels shared with items ``first..first + count``: uint16 ``[256]``."""
  if count < BLOCK:
    out[count:] = 0
  for word in range(len(marks)):
    own, others, shared = query_marks[word, query], marks[word, first : first + count], out[:count]
    if classes:
      for i in range(count):
        shared[i] = others[i] == own
    elif word == 0:
      for i in range(count):
        shared[i] = popcount(np.uint64(others[i] & own))
    else:
      for i in range(count):
        shared[i] += popcount(np.uint64(others[i] & own))


@compiled()
def _count(
  queries,
  rows,
  query_marks,
  database_marks,
  classes,
  num_bytes,
  tile,
  tile_bytes,
  distances,
  max_gain,
  keys,
  counts,
):
  num_items, levels = database_marks.shape[1], np.uint32(max_gain + 1)
  part, gains = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.uint16)
  for start in range(0, num_items, tile_bytes.shape[1]):
    stop = min(start + tile_bytes.shape[1], num_items)
    turn(rows, num_bytes, start, stop, tile)
    for query in range(len(queries)):
      copies = counts[query]
      for first in range(start, stop, BLOCK):
        count = min(BLOCK, stop - first)
        block_distances(queries[query], tile_bytes, first - start, part, distances)
        _block_gains(query_marks, query, database_marks, first, count, classes, gains)
        for i in range(BLOCK):
          keys[i] = np.uint32(distances[i]) * levels + np.uint32(gains[i])
        if count == BLOCK and len(copies) == _COPIES:
          for i in range(0, BLOCK, _COPIES):
            copies[0, keys[i]] += 1
            copies[1, keys[i + 1]] += 1
            copies[2, keys[i + 2]] += 1
            copies[3, keys[i + 3]] += 1
        else:
          for i in range(count):
            copies[0, keys[i]] += 1


@compiled()
def _rank(
  queries,
  rows,
  query_marks,
  database_marks,
  classes,
  num_bytes,
  tile,
  tile_bytes,
  distances,
  largest,
  last,
  starts,
  ranks,
  rank_gains,
  cuts,
  discounts,
  sums,
):
  num_items = database_marks.shape[1]
  part, gains = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.uint16)
  below, relevant = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.uint8)
  near, words = below.view(np.uint64), relevant.view(np.uint64)
  places = np.empty(BLOCK, np.int32)
  for start in range(0, num_items, tile_bytes.shape[1]):
    stop = min(start + tile_bytes.shape[1], num_items)
    turn(rows, num_bytes, start, stop, tile)
    for query in range(len(queries)):
      place, found = starts[query]
      for first in range(start, stop, BLOCK):
        count = min(BLOCK, stop - first)
        block_distances(queries[query], tile_bytes, first - start, part, distances)
        _block_gains(query_marks, query, database_marks, first, count, classes, gains)
        if largest == num_items:
          for i in range(BLOCK):
            relevant[i] = gains[i] > 0
          for i in range(count):
            places[i] = place[distances[i]]
            place[distances[i]] += 1
        else:
          mark_below(distances, last[query] + 1, count, below)
          for i in range(BLOCK):
            relevant[i] = below[i] & np.uint8(gains[i] > 0)
          for group in range(BLOCK // 64):
            bits = _as_bits(near[8 * group : 8 * group + 8])
            while bits:
              i = 64 * group + np.int64(trailing_zeros(bits))
              bits &= bits - np.uint64(1)
              places[i] = place[distances[i]]
              place[distances[i]] += 1
        for group in range(BLOCK // 64):
          bits = _as_bits(words[8 * group : 8 * group + 8])
          while bits:
            i = 64 * group + np.int64(trailing_zeros(bits))
            bits &= bits - np.uint64(1)
            if places[i] < largest:
              at = found[distances[i]]
              found[distances[i]] = at + 1
              ranks[query, at] = places[i]
              rank_gains[query, at] = gains[i]
  for query in range(len(queries)):
    # Of relevant items at the distance of the cut-off, the first ones by index were written.
    _add_up(
      ranks[query], rank_gains[query], starts[query, 1, last[query]], cuts, discounts, sums[query]
    )


@compiled()
def _as_bits(words):
  """64 bytes that are 0 or 1, in eight words, as the bits of one word, the first the lowest."""
  bits = np.uint64(0)
  for word in range(8):
    # The product brings bit 8 i of a word to bit 56 + i.
    byte = (words[word] * np.uint64(0x0102040810204080)) >> np.uint64(56)
    bits |= byte << np.uint64(8 * word)
  return bits


@compiled()
def _add_up(ranks, gains, count, cuts, discounts, sums):
  """Sums ``[3, cuts]`` over relevant items in ranked order."""
  precisions, discounted, cut = 0.0, 0.0, 0
  for i in range(count):
    rank = np.int64(ranks[i])
    while rank >= cuts[cut]:
      sums[0, cut], sums[1, cut], sums[2, cut] = precisions, i, discounted
      cut += 1
    precisions += (i + 1) / (rank + 1)
    discounted += gains[i] * discounts[rank]
  for rest in range(cut, len(cuts)):
    sums[0, rest], sums[1, rest], sums[2, rest] = precisions, count, discounted
