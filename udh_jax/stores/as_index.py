"""A store asked in the way that an index is asked."""

from collections.abc import Sequence

import numpy as np

from udh_jax.retrieval.index import Hits
from udh_jax.stores.interface import Found, Store, Where


class StoreAsIndex:
  """What `udh_jax.encoders.queries` asks of an index, answered by a store.

  Attributes:
    num_bits: Length of the codes.
    about: That of the store.
    names: Names of what was found so far; indices point into it.
  """

  def __init__(self, store: Store, *, where: Where | None = None, approximate: bool = False):
    """Wraps a store.

    Args:
      store: To ask.
      where: Only items whose metadata are so.
      approximate: Search by the store's approximate index.
    """
    self.num_bits, self.about = store.num_bits, store.about
    self.names: list[str] = []
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
    hits = []
    for one in found:
      first = len(self.names)
      self.names += one.names
      hits.append(Hits(one.distances, np.arange(first, len(self.names))))
    return hits
