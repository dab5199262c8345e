"""What is searched: the codes of one state of an index file, held in memory, or a store."""

import copy
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from udh_jax.encoders.queries import most_similar
from udh_jax.errors import require
from udh_jax.retrieval.index import HammingIndex
from udh_jax.service.batching import by_batches

LARGEST_K = 1000
_K_SIZES = (32, 256, LARGEST_K + 2)  # k is rounded up to one, so that few searches are compiled


class Item(NamedTuple):
  """One item of a collection.

  Attributes:
    name: Relative to the folder of the pictures, with forward slashes.
    code: Packed. uint8 array of shape ``[bytes]``.
    metadata: Values by column.
  """

  name: str
  code: np.ndarray
  metadata: Mapping[str, Any]


class Hit(NamedTuple):
  """A neighbour.

  Attributes:
    name: Of the item.
    distance: In bits.
    metadata: Values by column.
  """

  name: str
  distance: int
  metadata: Mapping[str, Any]


class Collection(Protocol):
  """Items with codes. Its methods are called in one thread at a time.

  Attributes:
    title: What people call it.
    version: Tells this state of it from every other.
    num_bits: Length of the codes.
    digest: Of the encoder that made the codes; None if it is not known.
    folder: Of the pictures; None if it is not known.
    columns: Type of each metadata column by its name.
  """

  title: str
  version: str
  num_bits: int
  digest: str | None
  folder: pathlib.Path | None
  columns: Mapping[str, str]

  @property
  def last_count(self) -> int:
    """Number of items when they were last counted; from any thread, without waiting."""
    ...

  def count(self) -> int:
    """Number of items."""
    ...

  def nearest(self, codes: np.ndarray, k: int, where: Sequence[str] = ()) -> list[list[Hit]]:
    """The k nearest items of each code, fewer where there are fewer; ties by place.

    Args:
      codes: uint8 array of shape ``[q, bytes]``, q >= 1.
      k: 1 to `LARGEST_K` + 2.
      where: Conditions on metadata, such as "year>=2020".
    """
    ...

  def is_exact(self, k: int) -> bool:
    """Whether `nearest` misses no nearer item where it finds k."""
    ...

  def item(self, name: str) -> Item | None:
    """The item of a name, or None."""
    ...

  def page(self, offset: int, limit: int, contains: str = "") -> tuple[list[str], int]:
    """Names of items, and how many there are to leaf through.

    Args:
      offset: Of the first.
      limit: How many at most.
      contains: Only names with this text in them, its ASCII letters in either case.
    """
    ...


class IndexCollection:
  """One state of an index file. What happens to the file later does not change it."""

  columns: Mapping[str, str] = {}

  def __init__(
    self,
    index: HammingIndex,
    *,
    title: str,
    version: str,
    folder: pathlib.Path | None,
    batch_sizes: Sequence[int] = (1, 4, 16),
  ):
    """Copies and checks every byte of an index.

    Args:
      index: As `HammingIndex.load` gives it. It may lie in the file, whose bytes are checked when
        they are touched, and which somebody may overwrite.
      title: What people call it.
      version: Tells this state from every other.
      folder: Of the pictures.
      batch_sizes: How many queries are searched at once.

    Raises:
      InputError: If the file is damaged.
    """
    self._index = HammingIndex(
      np.array(index.codes),
      copy.deepcopy(index.names[:]),
      num_bits=index.num_bits,
      about=index.about,
    )
    self.title, self.version, self.folder = title, version, folder
    self.num_bits = index.num_bits
    self.digest = index.encoder_digest
    self._batch_sizes = batch_sizes
    self._named: tuple[str, np.ndarray] = "", np.zeros(0, np.int64)

  def prepare(self) -> None:
    """Compiles each search that there will be, and makes what searches need."""
    if not len(self._index):
      return
    for size in self._batch_sizes:
      codes = np.repeat(self._index.codes[:1], size, axis=0)
      outputs = np.ones((size, self.num_bits), np.float32)
      for k in {self._k(k) for k in _K_SIZES}:
        self._search(codes, k)
        most_similar(self._index, codes, outputs, k)
      most_similar(self._index, codes, outputs, 1, 0)
    self.item(self._index.names[0])

  @property
  def last_count(self) -> int:
    """Number of items."""
    return len(self._index)

  def count(self) -> int:
    """Number of items."""
    return len(self._index)

  def _k(self, k):
    return min(next(size for size in _K_SIZES if size >= k), len(self._index))

  def _search(self, codes, k):
    return by_batches(lambda rows: tuple(self._index.search(rows, k)), codes, self._batch_sizes)

  def nearest(self, codes: np.ndarray, k: int, where: Sequence[str] = ()) -> list[list[Hit]]:
    """See `Collection.nearest`; an index holds no metadata."""
    _require_no_conditions(where)
    if not len(self._index):
      return [[] for _ in codes]
    return self._hits(self._search(codes, self._k(k)), k)

  def most_similar(
    self,
    codes: np.ndarray,
    outputs: np.ndarray,
    k: int,
    radius: int | None = None,
    where: Sequence[str] = (),
  ) -> list[list[Hit]]:
    """The k items most similar to each query by its outputs, fewer where there are fewer.

    Args:
      codes: As of `nearest`; distances are to them.
      outputs: Of the encoder for the queries. float32 array of shape ``[q, num_bits]``.
      k: 1 to `LARGEST_K` + 2.
      radius: Only items within this distance.
      where: As of `nearest`.
    """
    _require_no_conditions(where)
    if not len(self._index):
      return [[] for _ in codes]

    def find(rows):
      return most_similar(self._index, codes[rows], outputs[rows], self._k(k), radius)

    rows = np.arange(len(codes))
    if radius is None:
      return self._hits(by_batches(find, rows, self._batch_sizes), k)
    return self._hits(find(rows), k)

  def _hits(self, found, k: int) -> list[list[Hit]]:
    """The first k of each query's distances and indices."""
    names = self._index.names
    return [
      [Hit(names[int(i)], int(d), {}) for d, i in zip(distances[:k], indices[:k], strict=True)]
      for distances, indices in found
    ]

  def is_exact(self, k: int) -> bool:
    """Always."""
    return True

  def item(self, name: str) -> Item | None:
    """The first item of a name, or None."""
    row = int(self._index.find(name)[0])
    return None if row < 0 else Item(name, self._index.codes[row], {})

  def page(self, offset: int, limit: int, contains: str = "") -> tuple[list[str], int]:
    """See `Collection.page`."""
    names = self._index.names
    if not contains:
      return list(names[offset : offset + limit]), len(names)
    text, rows = self._named
    if text != contains:
      rows = names.containing(contains)
      self._named = contains, rows  # for the pages that follow
    return list(names.take(rows[offset : offset + limit])), len(rows)


def _require_no_conditions(where: Sequence[str]) -> None:
  require(not where, "An index has no metadata to filter by; a store has (--store).")
