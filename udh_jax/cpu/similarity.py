"""The most similar codes to real outputs, on the CPU.

How far an item falls short of the best code is a sum of what each of its nibbles loses. Losses are
rounded down to bytes, in steps of how far the k-th best item so far falls short, and looked up and
added for 32 items at once, as FAISS and ScaNN scan the codes of product quantisation. So most items
are seen not to be among the k best; the similarity of the others is summed up.
"""

import numpy as np

from udh_jax.cpu.compiled import compiled, fixed, run_in_threads, split, trailing_zeros
from udh_jax.cpu.distances import BLOCK, empty_nibbles, turn_to_nibbles
from udh_jax.cpu.lookup import add_looked_up
from udh_jax.cpu.neighbours import any_marked, mark_below

_QUERIES = 256  # that share the turning of a tile
_KEPT = 2**21  # numbers of those queries' tables, or of their best items, at most
_STEPS = 254  # in which losses are counted; what loses more counts 255


def most_similar(tables: np.ndarray, database: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
  """The k most similar items of each query, ties by index.

  For processors with AVX2 alone, see `udh_jax.cpu.lookup.has_look_ups`.

  Args:
    tables: What each byte of an item adds to the similarity, as a sum of what its bits add. float32
      array of shape ``[bytes, q, 256]``.
    database: Packed codes. uint8 array of shape ``[n, bytes]``.
    k: 1 to n.

  Returns:
    Similarities, float32, and indices, int32, ``[q, k]``, most similar first.
  """
  num_bytes, num_queries, _ = tables.shape
  values, items = np.empty((num_queries, k), np.float32), np.empty((num_queries, k), np.int32)
  rows = fixed(database).reshape(-1)

  def run(low, high):
    own = fixed(tables[:, low:high].swapaxes(0, 1))
    tile = empty_nibbles(num_bytes)
    heaps = values[low:high], items[low:high]
    losses, best, slack = _losses(own)
    _most_similar(
      rows, len(database), num_bytes, tile, tile.view(np.uint8), own, losses, best, slack, *heaps
    )
    order = np.lexsort((heaps[1], -heaps[0]))
    for heap in heaps:
      heap[:] = np.take_along_axis(heap, order, axis=1)

  most = _KEPT // max(256 * num_bytes, k)
  run_in_threads(run, split(num_queries, max(1, min(_QUERIES, most))))
  return values, items


def _losses(tables) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """How far codes can fall short of the best one, by nibble.

  Args:
    tables: float32 array of shape ``[q, bytes, 256]``.

  Returns:
    Losses, float64 ``[q, 2 * bytes, 16]``, of the lower nibbles of all bytes first; the similarity
    of the best code, float64 ``[q]``; and by how much sums in float32 may be off, ``[q]``.
  """
  by_nibble = tables.astype(np.float64).reshape(*tables.shape[:2], 16, 16)  # the upper one first
  best = by_nibble.max(axis=(2, 3))
  losses = [best[..., None] - by_nibble.max(axis=axis) for axis in (2, 3)]
  total = best.sum(axis=1)  # of the magnitudes of the outputs
  # A sum of m float32 numbers is off by at most m roundings of 2^-24 of it, twice over.
  return np.concatenate(losses, axis=1), total, 8 * tables.shape[1] * 2.0**-22 * total


@compiled()
def _most_similar(
  rows, num_items, num_bytes, tile, tile_bytes, tables, losses, best, slack, values, items
):
  """Keeps the best items of each query in a heap, the worst of them first."""
  num_queries, k = items.shape
  part, below = np.empty(BLOCK, np.uint8), np.empty(BLOCK, np.uint8)
  words = below.view(np.uint64)
  size = np.zeros(num_queries, np.int64)  # items in the heap
  step = np.zeros(num_queries)
  limit = np.zeros(num_queries, np.int64)  # steps; only what loses fewer can be better
  steps = np.empty((num_queries, 2 * num_bytes * 16), np.uint8)  # what nibbles lose
  for start in range(0, num_items, tile_bytes.shape[1]):
    stop = min(start + tile_bytes.shape[1], num_items)
    turn_to_nibbles(rows, num_bytes, start, stop, tile)
    for query in range(num_queries):
      heap, named, table = values[query], items[query], tables[query]
      for first in range(start, stop, BLOCK):
        if size[query] < k:
          below[:] = 0
          below[: stop - first] = 1
        else:
          add_looked_up(steps[query], tile_bytes, first - start, 0, 2 * num_bytes, part)
          mark_below(part, limit[query], stop - first, below)
          if not any_marked(words):
            continue
        for word in range(len(words)):
          bits = words[word]
          while bits:
            place = 8 * word + np.int64(trailing_zeros(bits) >> np.uint64(3))
            bits &= bits - np.uint64(1)
            value = _similarity(table, rows, (first + place) * num_bytes)
            if size[query] < k:
              _put(heap, named, size[query], value, first + place)
              size[query] += 1
              if size[query] < k:
                continue
            elif value > heap[0]:  # of equal ones the first stays
              _replace_worst(heap, named, value, first + place)
            else:
              continue
            room = best[query] - heap[0] + slack[query]  # what an item may lose and be better
            limit[query] = 0 if step[query] == 0 else np.int64(room / step[query]) + 1
            if 2 * limit[query] <= _STEPS:  # the steps have become coarse
              step[query] = room / _STEPS
              limit[query] = _count_steps(losses[query], step[query], steps[query])


@compiled()
def _count_steps(losses, step, steps):
  """Rounds losses down to steps, and returns how many are too many."""
  if step <= 0:
    return 0
  for nibble in range(len(losses)):
    for value in range(16):
      steps[16 * nibble + value] = np.uint8(min(losses[nibble, value] / step, 255.0))
  return _STEPS + 1


@compiled()
def _similarity(table, rows, at):
  """The sum of what an item's bytes add, from the first to the last, as JAX's kernel sums."""
  total = table[0, rows[at]]
  for byte in range(1, len(table)):
    total += table[byte, rows[at + byte]]
  return total if total != 0 else np.float32(0)  # and not -0


@compiled()
def _worse(values, items, a, b):
  """Whether what is at ``a`` comes after what is at ``b`` in the order of the answer."""
  return values[a] < values[b] or (values[a] == values[b] and items[a] > items[b])


@compiled()
def _swap(values, items, a, b):
  values[a], values[b] = values[b], values[a]
  items[a], items[b] = items[b], items[a]


@compiled()
def _put(values, items, at, value, item):
  """Puts an item at the end of a heap of ``at`` items."""
  values[at], items[at] = value, item
  while at > 0 and _worse(values, items, at, (at - 1) // 2):
    _swap(values, items, at, (at - 1) // 2)
    at = (at - 1) // 2


@compiled()
def _replace_worst(values, items, value, item):
  """Puts an item in the place of the first one of a full heap."""
  values[0], items[0] = value, item
  at, size = 0, len(values)
  while 2 * at + 1 < size:
    child = 2 * at + 1
    if child + 1 < size and _worse(values, items, child + 1, child):
      child += 1
    if not _worse(values, items, child, at):
      break
    _swap(values, items, child, at)
    at = child
