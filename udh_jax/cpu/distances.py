"""Hamming distances of one query to a block of items, a byte of all items at a time.

Codes are laid out with a byte of all items side by side, so that one instruction serves as many of
them as a vector register has bytes, and nothing is ever summed across a register. Bits are counted,
or, where the processor cannot, nibbles are looked up, see `udh_jax.cpu.lookup`.
"""

import numpy as np

from udh_jax.cpu.compiled import compiled, fixed, load_word, popcount
from udh_jax.cpu.lookup import add_looked_up, by_table, tables

BLOCK = 256  # items whose distances are made by one call
_TILE_BYTES = 32768  # of codes that are turned at once; they stay in a near cache
_MOST_BLOCKS = 4
_NARROW = 24  # bytes whose distances are added up in a byte
_BY_TABLE = by_table()
_NIBBLES = 62  # whose distances are added up in a byte
_HALVES = np.uint64(0x0F0F0F0F0F0F0F0F)  # the lower nibble of each byte


def empty_tile(num_bytes: int) -> np.ndarray:
  """Room for a tile of turned codes of this width: uint64 ``[rows, items / 8]``.

  A row is a byte of all items, filled up to a multiple of four with zeros, which are never
  different; or a nibble, the lower ones of all bytes first.
  """
  return empty_nibbles(num_bytes) if _BY_TABLE else _room(num_bytes + -num_bytes % 4)


def empty_nibbles(num_bytes: int) -> np.ndarray:
  """Room for a tile of nibbles: uint64 ``[2 * bytes, items / 8]``, the lower ones first."""
  return _room(2 * num_bytes)


def _room(rows: int) -> np.ndarray:
  blocks = max(1, min(_MOST_BLOCKS, _TILE_BYTES // (BLOCK * rows)))
  return np.zeros((rows, BLOCK * blocks // 8), np.uint64)


def prepared(queries: np.ndarray) -> np.ndarray:
  """Queries ``[q, bytes]`` as `block_distances` takes them: some hundreds at a time, for room."""
  if _BY_TABLE:
    return fixed(tables(queries))
  return fixed(np.pad(queries, ((0, 0), (0, -queries.shape[1] % 4))))


@compiled()
def turn(rows, num_bytes, start, stop, tile):
  """Turns items ``start..stop`` of flat rows so that a row of the tile has a part of all of them.

  Eight items are turned at once, eight bytes of each. What the tile holds after the last item is
  anything.
  """
  if _BY_TABLE:
    turn_to_nibbles(rows, num_bytes, start, stop, tile)
  else:
    _turn_bytes(rows, num_bytes, start, stop, tile)


@compiled()
def turn_to_nibbles(rows, num_bytes, start, stop, tile):
  """Turns items as `turn` does, into a tile of nibbles."""
  _turn_bytes(rows, num_bytes, start, stop, tile)
  for byte in range(num_bytes):
    lower, upper = tile[byte], tile[num_bytes + byte]
    for i in range(tile.shape[1]):
      word = lower[i]
      lower[i], upper[i] = word & _HALVES, (word >> np.uint64(4)) & _HALVES


@compiled()
def _turn_bytes(rows, num_bytes, start, stop, tile):
  """Turns items so that the first rows of the tile have a byte of all of them."""
  whole_words = num_bytes // 8
  for group in range((stop - start) // 8):
    at = (start + 8 * group) * num_bytes
    for word in range(whole_words):
      _turn_words(rows, at + 8 * word, num_bytes, tile[8 * word : 8 * word + 8, group])
  bytes_of = tile.view(np.uint8)
  for byte in range(8 * whole_words, num_bytes):
    for item in range(stop - start):
      bytes_of[byte, item] = rows[(start + item) * num_bytes + byte]
  for item in range(8 * ((stop - start) // 8), stop - start):
    for byte in range(8 * whole_words):
      bytes_of[byte, item] = rows[(start + item) * num_bytes + byte]


@compiled()
def _turn_words(rows, at, step, out):
  """Turns eight words of eight bytes: halves of words change places, then quarters, then bytes."""
  a, b, c, d = (
    load_word(rows, at),
    load_word(rows, at + step),
    load_word(rows, at + 2 * step),
    load_word(rows, at + 3 * step),
  )
  e, f, g, h = (
    load_word(rows, at + 4 * step),
    load_word(rows, at + 5 * step),
    load_word(rows, at + 6 * step),
    load_word(rows, at + 7 * step),
  )
  width, mask = np.uint64(32), np.uint64(0x00000000FFFFFFFF)
  a, e = _swap(a, e, width, mask)
  b, f = _swap(b, f, width, mask)
  c, g = _swap(c, g, width, mask)
  d, h = _swap(d, h, width, mask)
  width, mask = np.uint64(16), np.uint64(0x0000FFFF0000FFFF)
  a, c = _swap(a, c, width, mask)
  b, d = _swap(b, d, width, mask)
  e, g = _swap(e, g, width, mask)
  f, h = _swap(f, h, width, mask)
  width, mask = np.uint64(8), np.uint64(0x00FF00FF00FF00FF)
  out[0], out[1] = _swap(a, b, width, mask)
  out[2], out[3] = _swap(c, d, width, mask)
  out[4], out[5] = _swap(e, f, width, mask)
  out[6], out[7] = _swap(g, h, width, mask)


@compiled()
def _swap(a, b, width, mask):
  """Changes the upper parts of the first word for the lower parts of the second."""
  change = ((a >> width) ^ b) & mask
  return a ^ (change << width), b ^ change


@compiled()
def block_distances(query, tile, start, part, out):
  """Distances of a query to items ``start..start + 256`` of a tile of bytes.

  Args:
    query: uint8, see `prepared`.
    tile: uint8 ``[rows, items]``.
    start: First item.
    part: uint8 ``[256]``, scratch.
    out: uint8 or uint16 ``[256]``.
  """
  out[:] = 0
  if _BY_TABLE:
    for first in range(0, len(tile), _NIBBLES):
      add_looked_up(query, tile, start, first, min(first + _NIBBLES, len(tile)), part)
      for i in range(BLOCK):
        out[i] += part[i]
    return
  for low in range(0, len(query), _NARROW):
    high = min(low + _NARROW, len(query))
    _add_bytes(query[low:high], tile[low:high, start : start + BLOCK], part)
    for i in range(BLOCK):
      out[i] += part[i]


@compiled()
def _add_bytes(query, items, out):
  """Distances by up to 31 bytes, a multiple of four: uint8 ``[bytes, 256]`` to ``[256]``."""
  num_bytes = len(query)
  first = num_bytes % 8
  out[:] = 0
  # Slices from 0 on: an index that might be negative would keep the loop from being vectorised.
  if first:
    q, t = query[:4], items[:4]
    q0, q1, q2, q3 = q[0], q[1], q[2], q[3]
    for i in range(BLOCK):
      out[i] = _apart(q0, t[0, i]) + _apart(q1, t[1, i]) + _apart(q2, t[2, i]) + _apart(q3, t[3, i])
  for byte in range(first, num_bytes, 8):
    q, t = query[byte : byte + 8], items[byte : byte + 8]
    q0, q1, q2, q3, q4, q5, q6, q7 = q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]
    for i in range(BLOCK):
      out[i] += (
        _apart(q0, t[0, i])
        + _apart(q1, t[1, i])
        + _apart(q2, t[2, i])
        + _apart(q3, t[3, i])
        + _apart(q4, t[4, i])
        + _apart(q5, t[5, i])
        + _apart(q6, t[6, i])
        + _apart(q7, t[7, i])
      )


@compiled()
def _apart(a, b):
  return popcount(np.uint8(a ^ b))
