"""A method with its configuration: its stages, and which of them hold what people look at."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from udh_jax.data.types import Dataset
from udh_jax.runtime.stage import Stage

Output = tuple[str, str]  # a stage, and the name of one of its outputs


class CodeSource(NamedTuple):
  """Where codes of all items are: one row of a run's tables.

  Outputs are packed codes, uint8 ``[rows, bytes]``, or real values ``[rows, bits]``, of which the
  signs are the codes.

  Attributes:
    title: What the row is called.
    query: Codes of items as queries, by side: "image", and "text" where items are pairs.
    database: The same of items that are searched; None are the queries' own.
  """

  title: str
  query: Mapping[str, Output]
  database: Mapping[str, Output] | None = None


class Drawing(NamedTuple):
  """A picture that one method alone has.

  Attributes:
    reads: Stages whose outputs are drawn.
    draw: ``(dataset, config, outputs by stage, workdir) -> sections`` of the report. Outputs are
      NumPy arrays. Process 0 alone calls it, so that it must not restore or reduce anything.
  """

  reads: tuple[str, ...]
  draw: Callable[[Dataset, ConfigDict, Mapping[str, Any], pathlib.Path], list[Any]]


def _accept(dataset: Dataset) -> None:
  """Any data set will do."""


class Plan(NamedTuple):
  """A method with its configuration.

  Attributes:
    title: The method's name in tables.
    stages: In order.
    network: The stage whose output is the network that makes the codes, and that is published.
    codes: The method's own first, then those of its parts, of its teacher and of the baselines. A
      row whose output a stage did not make is left out.
    clusters: Stages that hold clusterings.
    drawings: Pictures besides those that every run has.
    check: Refuses a data set that the method cannot learn from, before anything runs.
  """

  title: str
  stages: tuple[Stage, ...]
  network: str
  codes: tuple[CodeSource, ...]
  clusters: tuple[str, ...] = ()
  drawings: tuple[Drawing, ...] = ()
  check: Callable[[Dataset], None] = _accept

  @property
  def has_texts(self) -> bool:
    """Whether items are pairs of images and texts."""
    return "text" in self.codes[0].query
