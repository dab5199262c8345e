"""What a loss of the supervised trainer consists of."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax


class PointWiseLoss(NamedTuple):
  """A loss that reads images one by one, with their labels, and no pairs of them.

  Attributes:
    title: What its method is called in tables.
    terms: ``(relaxed, classes, labels, step, weights, settings) -> (classification,
      quantisation)``, scalars, of which the second is weighed by ``quantisation_weight``. Relaxed
      codes have shape ``[m, c]``; ``classes`` holds ``codes`` ``[K, c]`` and, where they are
      fixed, ``tie_break`` ``[c]``; labels are int ``[m]``, -1 for none, or bool ``[m, K]``; step
      counts from 0; weights ``[m]`` are 0 for rows that fill up a batch; settings are the fields of
      the configuration's section ``loss``.
    fields: Values of that section which differ from the usual ones.
    fixed_codes: Whether the codes of the classes are given, as far from each other as can be; else
      they are learned.
  """

  title: str
  terms: Callable[..., tuple[jax.Array, jax.Array]]
  fields: Mapping[str, Any] = {}
  fixed_codes: bool = False
