"""Many strings in two arrays: their bytes, and where each ends."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from udh_jax.errors import InputError, require

_CHUNK = 1 << 20  # bytes of text worked on at once
_LOWER = np.arange(256, dtype=np.uint8)  # of each byte; beyond ASCII they stay as they are
_LOWER[ord("A") : ord("Z") + 1] += ord("a") - ord("A")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # of the polynomial whose value is the hash; odd
_UNBASE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_MIX = np.uint64(0xBF58476D1CE4E5B9)


class Names(Sequence[str]):
  """A sequence of strings that takes no more memory than their bytes and 8 bytes each.

  Strings are made when they are asked for. A name of the file system that is not UTF-8 keeps its
  bytes (Python's "surrogateescape").

  Attributes:
    text: All names one after the other, UTF-8. uint8 array of shape ``[b]``, or what slices to one.
    ends: Where each name ends in ``text``. uint64 array of shape ``[n]``, or what slices to one.
  """

  def __init__(self, text: np.ndarray, ends: np.ndarray):
    self.text = text
    self.ends = ends

  @classmethod
  def of(cls, names: Iterable[str]) -> "Names":
    """Names of strings.

    Raises:
      InputError: If one is not a string, or holds half of a surrogate pair.
    """
    if isinstance(names, Names):
      return names
    names = list(names)
    try:
      texts = [name.encode("utf-8", "surrogateescape") for name in names]
    except AttributeError:
      wrong = next(name for name in names if not isinstance(name, str))
      raise InputError(f"HammingIndex: name {wrong!r} is not a string.") from None
    except UnicodeEncodeError as error:
      raise InputError(
        f"HammingIndex: name {error.object!a} is not text that UTF-8 can hold; repair it."
      ) from None
    ends = np.cumsum(np.fromiter(map(len, texts), np.uint64, len(texts)), dtype=np.uint64)
    return cls(np.frombuffer(b"".join(texts), np.uint8), ends)

  @classmethod
  def joined(cls, several: Sequence["Names"]) -> "Names":
    """All of them, one after the other."""
    if len(several) == 1:
      return several[0]
    before, ends = np.uint64(0), []
    for names in several:
      ends.append(names.ends[:] + before)
      before += np.uint64(len(names.text))
    texts = [names.text[:] for names in several]
    return cls(
      np.concatenate(texts) if texts else np.zeros(0, np.uint8),
      np.concatenate(ends) if ends else np.zeros(0, np.uint64),
    )

  def __len__(self) -> int:
    return len(self.ends)

  def __reduce__(self):
    return Names, (self.text[:], self.ends[:])

  @overload
  def __getitem__(self, key: int) -> str: ...

  @overload
  def __getitem__(self, key: slice | np.ndarray | list) -> "Names": ...

  def __getitem__(self, key):
    """The name at a place, or those of a slice, of several places or of a mask, as `Names`."""
    if isinstance(key, slice):
      first, last, step = key.indices(len(self))
      if step != 1:
        return self.take(np.arange(len(self))[key])
      base = self.ends[first - 1] if first else np.uint64(0)
      ends = self.ends[first : max(first, last)] - base
      start = int(base)
      return Names(self.text[start : start + int(ends[-1] if len(ends) else 0)], ends)
    if isinstance(key, np.ndarray | list):
      return self.take(np.arange(len(self))[np.asarray(key, None if len(key) else int)])
    row = range(len(self))[key]
    start = int(self.ends[row - 1]) if row else 0
    return _string(self.text[start : int(self.ends[row])])

  def __iter__(self) -> Iterator[str]:
    for _, _, text, ends in self._chunks():
      text, start = bytes(text), 0
      for end in ends.tolist():
        yield text[start:end].decode("utf-8", "surrogateescape")
        start = end

  def __eq__(self, other) -> bool:
    if isinstance(other, Names):
      return np.array_equal(self.ends[:], other.ends[:]) and np.array_equal(
        self.text[:], other.text[:]
      )
    if not isinstance(other, Sequence) or isinstance(other, str):
      return NotImplemented
    return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

  __hash__ = None  # type: ignore[assignment]  # equal to any sequence of the same strings

  def __repr__(self) -> str:
    shown = ", ".join(repr(name) for name in self[:3])
    return f"Names([{shown}{', ...' if len(self) > 3 else ''}], n={len(self)})"

  def __contains__(self, name) -> bool:
    return isinstance(name, str) and bool(self.find([name])[0] >= 0)

  def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
    """Position of the first item of that name."""
    row = int(self.find([value])[0])
    if row < 0 or start or stop is not None:
      return super().index(value, start, len(self) if stop is None else stop)
    return row

  def _spans_of(self, rows) -> tuple[np.ndarray, np.ndarray]:
    """Where in the text names begin and end, int64."""
    ends = self.ends[:]
    starts = np.where(rows > 0, ends[rows - 1], np.uint64(0))
    return starts.astype(np.int64), ends[rows].astype(np.int64)

  def take(self, rows: np.ndarray) -> "Names":
    """The names of ``rows``, in that order."""
    rows = np.asarray(rows, np.int64)
    if not len(rows):
      return Names(np.zeros(0, np.uint8), np.zeros(0, np.uint64))
    starts, ends = self._spans_of(rows)
    out_ends = np.cumsum(ends - starts)
    text, whole = np.empty(out_ends[-1], np.uint8), self.text[:]
    # Rows that follow each other are copied as one; others byte by byte, some at a time.
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    if len(breaks) <= len(rows) // 8 + 1:
      place = 0
      for first, last in zip([0, *breaks], [*breaks, len(rows)], strict=True):
        piece = whole[starts[first] : ends[last - 1]]
        text[place : place + len(piece)] = piece
        place += len(piece)
    else:
      for first, last in _spans(out_ends):
        base = out_ends[first - 1] if first else 0
        lengths = (ends - starts)[first:last]
        offsets = np.concatenate([[0], out_ends[first : last - 1] - base])
        places = np.repeat(starts[first:last] - offsets, lengths) + np.arange(lengths.sum())
        text[base : base + len(places)] = whole[places]
    return Names(text, out_ends.astype(np.uint64))

  def find(self, names: Iterable[str]) -> np.ndarray:
    """Where names are: int64 array of the first item of each, -1 for those that are not there.

    The first call makes a table of 16 bytes an item, which is kept.
    """
    names = names if isinstance(names, Names) else list(names)
    try:
      names = Names.of(names)
    except InputError:
      held = np.array([_is_text(name) for name in names], bool)
      if held.all():
        raise
      found = np.full(len(names), -1, np.int64)  # what cannot be a name is the name of nothing
      found[held] = self.find([name for name, kept in zip(names, held, strict=True) if kept])
      return found
    found = np.full(len(names), -1, np.int64)
    if not len(self) or not len(names):
      return found
    hashes, order = self._table
    wanted = names._hashes()
    place = np.searchsorted(hashes, wanted)
    left = np.arange(len(names))
    while len(left):  # more than once only where different names have one hash
      inside = place[left] < len(hashes)
      left = left[inside]
      left = left[hashes[place[left]] == wanted[left]]
      rows = order[place[left]]
      same = self._same(rows, names, left)
      found[left[same]] = rows[same]
      left = left[~same]
      place[left] += 1
    return found

  def containing(self, part: str) -> np.ndarray:
    """Which names contain a text, its ASCII letters in either case.

    Args:
      part: Any text; every name contains the empty one.

    Returns:
      Rows, ascending. int64 array.
    """
    try:
      wanted = _LOWER[np.frombuffer(part.encode("utf-8", "surrogateescape"), np.uint8)]
    except UnicodeEncodeError:  # half of a surrogate pair, which no name holds
      return np.zeros(0, np.int64)
    if not len(wanted):
      return np.arange(len(self))
    found = [np.zeros(0, np.int64)]
    for first, _, text, ends in self._chunks():
      text = _LOWER[text]
      at = np.flatnonzero(text[: max(len(text) - len(wanted) + 1, 0)] == wanted[0])
      for place, byte in enumerate(wanted[1:], 1):
        at = at[text[at + place] == byte]
      rows = np.searchsorted(ends, at, side="right")
      found.append(first + np.unique(rows[at + len(wanted) <= ends[rows]]))
    return np.concatenate(found)

  @functools.cached_property
  def _table(self) -> tuple[np.ndarray, np.ndarray]:
    hashes = self._hashes()
    order = np.argsort(hashes, kind="stable")
    return hashes[order], order

  def _same(self, rows, other, other_rows) -> np.ndarray:
    """Whether names of ``rows`` equal those of ``other_rows`` among ``other``."""
    (starts, ends), (other_starts, other_ends) = self._spans_of(rows), other._spans_of(other_rows)
    same = ends - starts == other_ends - other_starts
    places = np.flatnonzero(same)
    a, b = self.take(rows[places]), other.take(other_rows[places])
    differs = np.concatenate([[0], np.cumsum(a.text != b.text)])
    ends = a.ends.astype(np.int64)
    same[places] = differs[ends] == differs[np.concatenate([[0], ends])[:-1]]
    return same

  def _hashes(self) -> np.ndarray:
    """A polynomial of the bytes of each name, modulo 2^64. uint64 array of shape ``[n]``."""
    hashes = np.empty(len(self), np.uint64)
    for first, last, text, ends in self._chunks():
      up, down = _powers(1 << max(len(text), 1).bit_length())
      sums = np.zeros(len(text) + 1, np.uint64)
      np.cumsum((text.astype(np.uint64) + np.uint64(1)) * up[: len(text)], out=sums[1:])
      starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
      value = (sums[ends] - sums[starts]) * down[starts]
      hashes[first:last] = (value ^ (value >> np.uint64(31))) * _MIX
    return hashes

  def _chunks(self):
    """Yields (first row, last row, their text, int64 ends within it)."""
    ends = self.ends[:].astype(np.int64)
    for first, last in _spans(ends):
      base = int(ends[first - 1]) if first else 0
      yield first, last, self.text[base : int(ends[last - 1])], ends[first:last] - base


class LazyNames(Names):
  """Names of chosen rows of several sequences, joined where more than one is asked for."""

  def __init__(self, several: Sequence[Names], rows: np.ndarray | None):
    self._several, self._rows = several, rows
    self._firsts = np.cumsum([0, *map(len, several)])

  @functools.cached_property
  def _joined(self) -> Names:
    names = Names.joined(self._several)
    return names if self._rows is None else names.take(self._rows)

  @property
  def text(self) -> np.ndarray:  # type: ignore[override]  # `Names` never sets it again
    """See `Names`."""
    return self._joined.text

  @property
  def ends(self) -> np.ndarray:  # type: ignore[override]
    """See `Names`."""
    return self._joined.ends

  def __len__(self) -> int:
    return int(self._firsts[-1]) if self._rows is None else len(self._rows)

  def __getitem__(self, key):
    if isinstance(key, slice | np.ndarray | list):
      return self._joined[key]
    row = range(len(self))[key]
    row = row if self._rows is None else self._rows[row]
    part = int(np.searchsorted(self._firsts, row, side="right")) - 1
    return self._several[part][row - self._firsts[part]]


def require_names(names: Sequence[str], num_items: int) -> Names:
  """One name for each item, as `Names`."""
  require(
    isinstance(names, Iterable),
    f"HammingIndex: names is {type(names).__name__}; give one string for each code.",
  )
  names = Names.of(names)
  require(
    len(names) == num_items,
    f"HammingIndex: {num_items} codes and {len(names)} names; give one name for each code.",
  )
  return names


def _is_text(name) -> bool:
  """Whether a string can be a name; what is no string is refused where names are made."""
  if isinstance(name, str):
    try:
      name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair
      return False
  return True


def _string(data) -> str:
  return bytes(data).decode("utf-8", "surrogateescape")


def _spans(ends: np.ndarray) -> Iterator[tuple[int, int]]:
  """Ranges of rows of about `_CHUNK` bytes, each of at least one row."""
  first = 0
  while first < len(ends):
    base = int(ends[first - 1]) if first else 0
    last = max(first + 1, int(np.searchsorted(ends, base + _CHUNK, side="right")))
    yield first, min(last, first + _CHUNK)
    first = min(last, first + _CHUNK)


@functools.lru_cache(maxsize=2)
def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
  up, down = np.full(size + 1, _BASE), np.full(size + 1, _UNBASE)
  up[0] = down[0] = 1
  return np.cumprod(up, dtype=np.uint64), np.cumprod(down, dtype=np.uint64)
