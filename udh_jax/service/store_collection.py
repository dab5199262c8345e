"""A store of codes, served as a collection."""

import itertools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from udh_jax.records import encoder_digest_of
from udh_jax.retrieval.index import Names
from udh_jax.service.collection import Hit, Item
from udh_jax.service.problems import Problem
from udh_jax.stores import Store, StoreError, parse_where

_KEPT = 10.0  # seconds that a count serves; counting reads a whole table
_PATIENCE = 1.0  # seconds; a store that takes longer to fail is not asked again for a while
_REST = 5.0  # seconds
_EFFORT = 1000  # candidates of an approximate search: the most that PostgreSQL's graph gathers


class StoreCollection:
  """Items of a store as they are when they are asked for."""

  def __init__(self, store: Store, *, folder: pathlib.Path | None, approximate: bool = False):
    """Takes a store.

    Args:
      store: Opened.
      folder: Of the pictures.
      approximate: Search by the store's approximate index, where it has one.
    """
    self._store, self._approximate = store, approximate
    self._rests_until, self._trouble = -float("inf"), ""
    self.title = store.location
    self.digest = encoder_digest_of(store.about)
    self.version = f"store-{str(self.digest)[:12]}"
    self.num_bits, self.folder = store.num_bits, folder
    self.columns: Mapping[str, str] = store.columns
    self.last_count, self._counted = 0, -float("inf")
    self.count()

  def count(self) -> int:
    """Number of items, of a few seconds ago."""
    if time.monotonic() - self._counted > _KEPT:
      self.last_count, self._counted = self._asked(self._store.count), time.monotonic()
    return self.last_count

  def nearest(self, codes: np.ndarray, k: int, where: Sequence[str] = ()) -> list[list[Hit]]:
    """See `Collection.nearest`."""
    conditions = parse_where(where, self.columns)
    approximate = not self.is_exact(k)
    found = self._asked(
      self._store.nearest,
      codes,
      k,
      where=conditions,
      approximate=approximate,
      effort=_EFFORT if approximate else k,
    )
    known: dict[str, Mapping[str, Any]] = {}
    if self.columns:
      names = dict.fromkeys(name for one in found for name in one.names)
      known = {item.name: item.metadata for item in self._items(list(names))}
    return [
      [
        Hit(name, int(distance), known.get(name, {}))
        for name, distance in zip(one.names, one.distances, strict=True)
      ]
      for one in found
    ]

  def is_exact(self, k: int) -> bool:
    """Unless the approximate index answers: it can miss some where it finds k."""
    return not (self._approximate and k <= _EFFORT and self._asked(self._store.has_index))

  def _items(self, names: Sequence[str]) -> list[Item]:
    rows = self._asked(self._store.get, names)
    columns = rows.metadata.items()
    return [
      Item(name, rows.codes[row], {column: values[row] for column, values in columns})
      for row, name in enumerate(rows.names)
    ]

  def item(self, name: str) -> Item | None:
    """The item of a name, or None."""
    return next(iter(self._items([name])), None)

  def page(self, offset: int, limit: int, contains: str = "") -> tuple[list[str], int]:
    """See `Collection.page`; reads names before them, too, and with a text all names."""
    if not contains:
      size = min(offset + limit, 10_000)
      names = itertools.chain.from_iterable(self._store.names(batch_size=size))
      found = self._asked(lambda: list(itertools.islice(names, offset, offset + limit)))
      return found, self.count()

    def search():
      found, total = [], 0
      for batch in self._store.names():
        some = Names.of(batch)
        rows = some.containing(contains)
        first = max(offset - total, 0)
        found += some.take(rows[first : first + limit - len(found)])
        total += len(rows)
      return found, total

    return self._asked(search)

  def _asked(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Asks the store; that it cannot be reached is not a fault of the client.

    Calls are made in turn: while the store is away each would wait as long as the one before it.
    """
    begun = time.monotonic()
    if begun < self._rests_until:
      raise _unreachable(self._trouble)
    try:
      return function(*arguments, **options)
    except StoreError as error:
      if time.monotonic() - begun > _PATIENCE:
        self._rests_until, self._trouble = time.monotonic() + _REST, str(error)
      raise _unreachable(str(error)) from error


def _unreachable(trouble: str) -> Problem:
  headers = {"Retry-After": f"{_REST:.0f}"}
  return Problem(trouble, status=503, code="store", headers=headers)
