"""What evaluation reads of a run, as NumPy arrays."""

from typing import Any, NamedTuple

import numpy as np


class Codes(NamedTuple):
  """Packed codes of every item.

  Attributes:
    query: Of items as queries, by side: "image", and "text" where items are pairs. uint8 arrays of
      shape ``[n, bytes]``.
    database: Of items that are searched, the same way.
  """

  query: dict[str, np.ndarray]
  database: dict[str, np.ndarray]


class Found(NamedTuple):
  """What a run has made.

  Attributes:
    codes: By the title of a table's row, the method's own first.
    clusters: Pseudo labels of each round. int arrays of shape ``[n, H]``.
    network: That makes the codes, see `udh_jax.stages.network`.
    drawn: For each of the plan's drawings, outputs by stage.
  """

  codes: dict[str, Codes]
  clusters: list[np.ndarray]
  network: dict[str, Any]
  drawn: list[dict[str, Any]]
