"""What neighbours are asked of."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from udh_jax.retrieval.index.hamming_index import Hits


class Searchable(Protocol):
  """A `HammingIndex`, or a store that is asked in the same way."""

  @property
  def num_bits(self) -> int:
    """Length of the codes."""

  @property
  def about(self) -> Mapping[str, Any]:
    """What is noted of the codes: their encoder and the folder of their pictures."""

  @property
  def names(self) -> Sequence[str]:
    """Name of each item, by its index."""

  def search(
    self, queries: np.ndarray, k: int
  ) -> tuple[Iterable[np.ndarray], Iterable[np.ndarray]]:
    """Distances and indices of the k nearest of each query, nearest first."""

  def radius_search(self, queries: np.ndarray, radius: int) -> list[Hits]:
    """All items within a radius of each query, nearest first."""
