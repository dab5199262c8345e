"""A store asked in the way that an index is asked."""

import weakref
from collections.abc import Sequence
from typing import overload

import numpy as np

from udh_jax.retrieval.index import Hits
from udh_jax.stores.interface import Found, Store, Where


class FoundNames(Sequence[str]):
  """Names by index of what was found, each for as long as the indices that point to it are held.

  So a search of many queries, whose answers are written as they come, keeps those of a few.
  """

  def __init__(self):
    """Starts with none."""
    self._held: dict[int, str] = {}
    self._count = 0

  def add(self, names: Sequence[str]) -> np.ndarray:
    """Takes names in.

    Args:
      names: Of what a query has found.

    Returns:
      Their indices. int64 array of shape ``[m]``. When it and all views of it are gone, the names
      go too.
    """
    first, self._count = self._count, self._count + len(names)
    self._held.update(enumerate(names, first))
    indices = np.arange(first, self._count)
    weakref.finalize(indices, self._drop, first, self._count).atexit = False
    return indices

  def _drop(self, first: int, end: int) -> None:
    for index in range(first, end):
      del self._held[index]

  def __len__(self) -> int:
    return self._count

  @overload
  def __getitem__(self, index: int) -> str: ...

  @overload
  def __getitem__(self, index: slice) -> list[str]: ...

  def __getitem__(self, index: int | slice) -> str | list[str]:
    """The name of an index that is held.

    Raises:
      IndexError: If nothing was found by this index, or the indices it was found with are gone.
    """
    if isinstance(index, slice):
      return [self[i] for i in range(*index.indices(len(self)))]
    if index not in self._held:
      raise IndexError(f"The name of {index} is not held (any more).")
    return self._held[index]


class StoreAsIndex:
  """What `udh_jax.encoders.queries` asks of an index, answered by a store.

  Attributes:
    num_bits: Length of the codes.
    about: That of the store.
    names: Names of what was found, for as long as its indices are held; see `FoundNames`.
  """

  def __init__(self, store: Store, *, where: Where | None = None, approximate: bool = False):
    """Wraps a store.

    Args:
      store: To ask.
      where: Only items whose metadata are so.
      approximate: Search by the store's approximate index.
    """
    self.num_bits, self.about = store.num_bits, store.about
    self.names = FoundNames()
    self._store, self._where, self._approximate = store, where, approximate

  def __len__(self) -> int:
    return self._store.count(self._where)

  def search(self, queries: np.ndarray, k: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Distances and indices of the k nearest of each query."""
    effort = max(100, k)
    found = self._store.nearest(
      queries, k, where=self._where, approximate=self._approximate, effort=effort
    )
    hits = self._hits(found)
    return [one.distances for one in hits], [one.indices for one in hits]

  def radius_search(self, queries: np.ndarray, radius: int) -> list[Hits]:
    """All items within a radius of each query."""
    return self._hits(self._store.within(queries, radius, where=self._where))

  def _hits(self, found: Sequence[Found]) -> list[Hits]:
    return [Hits(one.distances, self.names.add(one.names)) for one in found]
