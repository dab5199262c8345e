"""Exact nearest neighbours and all neighbours within a radius, on the CPU."""

from collections.abc import Callable

import numpy as np

from udh_jax.cpu.compiled import (
  compiled,
  fixed,
  run_in_threads,
  split,
  trailing_zeros,
)
from udh_jax.cpu.distances import (
  BLOCK,
  block_distances,
  empty_tile,
  prepared,
  turn,
)
from udh_jax.cpu.widths import distance_dtype

_QUERIES = 256  # that share the turning of a tile
_KEPT = 2**21  # candidates of those queries, at most


def nearest(queries: np.ndarray, database: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
  """The k nearest items of each query, ties by index.

  Items are read in the order of their index. Of each query those are kept that are nearer than the
  k-th of the items so far, whose distance is known by counting; later ones at equal distance come
  after it. No more than 2 k + 512 items of a query are held.

  Args:
    queries: uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    k: 1 to n.

  Returns:
    Distances and indices, nearest first, int32 ``[q, k]``.
  """
  num_queries, num_bytes = queries.shape
  found = np.empty((2, num_queries, k), np.int32)
  queries, rows = fixed(queries), fixed(database).reshape(-1)
  room = min(len(database), 2 * k) + 2 * BLOCK

  def run(low, high):
    count = high - low
    tile = empty_tile(num_bytes)
    _nearest(
      prepared(queries[low:high]),
      rows,
      len(database),
      num_bytes,
      tile,
      tile.view(np.uint8),
      np.empty(BLOCK, distance_dtype(num_bytes)),
      np.empty((count, room), np.uint16),
      np.empty((count, room), np.int32),
      np.zeros((count, 8 * num_bytes + 2), np.int32),
      *found[:, low:high],
    )

  run_in_threads(run, split(num_queries, max(1, min(_QUERIES, _KEPT // room))))
  return found[0], found[1]


@compiled()
def _nearest(
  queries,
  rows,
  num_items,
  num_bytes,
  tile,
  tile_bytes,
  distances,
  kept_distances,
  kept_items,
  counts,
  out_distances,
  out_items,
):
  num_queries, k = out_items.shape
  part, below = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.uint8)
  words = below.view(np.uint64)
  size = np.zeros(num_queries, np.int64)  # items kept
  limit = np.full(num_queries, 8 * num_bytes + 1)  # only nearer items are kept from here on
  inside = np.zeros(num_queries, np.int64)  # items so far that are nearer than the limit
  for start in range(0, num_items, tile_bytes.shape[1]):
    stop = min(start + tile_bytes.shape[1], num_items)
    turn(rows, num_bytes, start, stop, tile)
    for query in range(num_queries):
      for first in range(start, stop, BLOCK):
        block_distances(queries[query], tile_bytes, first - start, part, distances)
        mark_below(distances, limit[query], stop - first, below)
        if not any_marked(words):
          continue
        for word in range(len(words)):
          bits = words[word]
          while bits:
            place = 8 * word + np.int64(trailing_zeros(bits) >> np.uint64(3))
            bits &= bits - np.uint64(1)
            distance = np.int64(distances[place])
            if distance < limit[query]:
              kept_distances[query, size[query]] = distance
              kept_items[query, size[query]] = first + place
              size[query] += 1
              counts[query, distance] += 1
              inside[query] += 1
              while inside[query] >= k:
                limit[query] -= 1
                inside[query] -= counts[query, limit[query]]
        if size[query] > kept_items.shape[1] - BLOCK:
          size[query] = _without_late_ones(
            kept_distances[query],
            kept_items[query],
            size[query],
            limit[query],
            k - inside[query],
          )
  for query in range(num_queries):
    _in_order(
      kept_distances[query],
      kept_items[query],
      size[query],
      counts[query],
      limit[query],
      out_distances[query],
      out_items[query],
    )


@compiled()
def mark_below(distances, limit, count, below):
  """1 for each of the first ``count`` distances below the limit, else 0; uint8 ``[256]``."""
  # As a value of the same width, so that as many are compared at once as fit a register.
  largest = distances.dtype.type(max(limit - 1, 0))
  some = np.uint8(limit > 0)
  for i in range(BLOCK):
    below[i] = np.uint8(distances[i] <= largest) & some
  if count < BLOCK:
    below[count:] = 0


@compiled()
def any_marked(words):
  """Whether `mark_below` marked one; of its answer as uint64 words."""
  found = np.uint64(0)
  for i in range(len(words)):
    found |= words[i]
  return found != 0


@compiled()
def _without_late_ones(distances, items, size, limit, ties):
  """Drops kept items beyond the limit, and those at it after the first ``ties``."""
  kept = 0
  for i in range(size):
    distance = distances[i]
    if distance < limit or (distance == limit and ties > 0):
      ties -= distance == limit
      distances[kept], items[kept] = distance, items[i]
      kept += 1
  return kept


@compiled()
def _in_order(distances, items, size, counts, last, out_distances, out_items):
  """Puts kept items in the order of their distance, ties as they come, as many as there is room."""
  place, total = counts, 0
  for distance in range(last + 1):  # counts become the places where distances begin
    place[distance], total = total, total + place[distance]
  for i in range(size):
    distance = np.int64(distances[i])
    if distance <= last:
      at = place[distance]
      place[distance] += 1
      if at < len(out_items):
        out_distances[at], out_items[at] = distance, items[i]


def within(
  queries: np.ndarray,
  database: np.ndarray,
  radius: int,
  check: Callable[[int], object] = lambda total: None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """All items within a radius of each query, nearest first, ties by index.

  Counted by distance first, and then written where they belong.

  Args:
    queries: uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    radius: 0 or more.
    check: Called with how many items there are in all, before they are held.

  Returns:
    Where each query's items begin and the last one's end, int64 ``[q + 1]``; distances and indices,
    int32, of all queries one after another.
  """
  num_queries, num_bytes = queries.shape
  radius = min(radius, 8 * num_bytes)
  queries, rows = fixed(queries), fixed(database).reshape(-1)
  counts = np.zeros((num_queries, radius + 1), np.int64)
  nothing = np.empty(0, np.int32)

  def run(out_distances, out_items):
    def some(low, high):
      tile = empty_tile(num_bytes)
      _within(
        prepared(queries[low:high]),
        rows,
        len(database),
        num_bytes,
        radius,
        tile,
        tile.view(np.uint8),
        np.empty(BLOCK, distance_dtype(num_bytes)),
        counts[low:high],
        out_distances,
        out_items,
      )

    run_in_threads(some, split(num_queries, _QUERIES))

  run(nothing, nothing)
  ends = counts.reshape(-1).cumsum()
  starts = np.concatenate([np.zeros(1, np.int64), ends[radius :: radius + 1]])
  check(int(starts[-1]))
  counts[:] = (ends - counts.reshape(-1)).reshape(counts.shape)  # the places where each begins
  found = np.empty((2, starts[-1]), np.int32)
  if starts[-1]:
    run(*found)
  return starts, found[0], found[1]


@compiled()
def _within(
  queries,
  rows,
  num_items,
  num_bytes,
  radius,
  tile,
  tile_bytes,
  distances,
  places,
  out_distances,
  out_items,
):
  """Counts items at each distance, or writes them to their places where there is room for them."""
  part, below = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.uint8)
  words = below.view(np.uint64)
  for start in range(0, num_items, tile_bytes.shape[1]):
    stop = min(start + tile_bytes.shape[1], num_items)
    turn(rows, num_bytes, start, stop, tile)
    for query in range(len(queries)):
      for first in range(start, stop, BLOCK):
        block_distances(queries[query], tile_bytes, first - start, part, distances)
        mark_below(distances, radius + 1, stop - first, below)
        if not any_marked(words):
          continue
        for word in range(len(words)):
          bits = words[word]
          while bits:
            place = 8 * word + np.int64(trailing_zeros(bits) >> np.uint64(3))
            bits &= bits - np.uint64(1)
            distance = np.int64(distances[place])
            at = places[query, distance]
            places[query, distance] = at + 1
            if len(out_items):
              out_distances[at], out_items[at] = distance, first + place
