"""Scores of codes by a run's configuration, and the files that hold them."""

import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from ml_collections import ConfigDict

from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.files import read_json, write_json, write_text
from udh_jax.records import require_fields, whole
from udh_jax.report.page import Section, Table, write_page
from udh_jax.report.table import markdown_table
from udh_jax.retrieval.metrics import (
  RetrievalScores,
  average_precision_description,
  retrieval_scores,
)
from udh_jax.runtime.log import say
from udh_jax.runtime.plan import Plan

Scored = TypeVar("Scored")  # scores of a run on images, or on pairs


def can_be_scored(dataset: Dataset) -> bool:
  """Whether there are labels and queries; says so if not."""
  scored = dataset.labels is not None and len(dataset.splits.query) > 0
  if not scored:
    what = "images have" if dataset.texts is None else "pairs have"
    say(
      f"Not scored: these {what} no labels, or none are queries. Training needs no labels, scoring "
      "does: name them in the configuration, or put pictures into one folder a class."
    )
  return scored


def definition(config: ConfigDict, dataset: Dataset, labels_used: str) -> str:
  """What a score of this run means: metric, split, pre-training labels, training seed."""
  score = config.score
  metric = average_precision_description(
    at=score.at or None, denominator=score.denominator, ties=score.ties, empty=score.empty
  )
  return (
    f"{metric}; {dataset.protocol}; pre-training labels: {labels_used}; training seed {config.seed}"
  )


def score_codes(
  config: ConfigDict,
  queries: np.ndarray,
  database: np.ndarray,
  query_labels: np.ndarray,
  database_labels: np.ndarray,
) -> RetrievalScores:
  """All scores of packed codes by ``config.score``, at its cut-off, its curve's and the last item.

  Of the radius's scores ``score.radius`` is the radius.

  Args:
    config: ``score`` is read.
    queries: uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_labels: ``[q]`` or ``[q, L]``.
    database_labels: ``[n]`` or ``[n, L]``.
  """
  score = config.score
  cuts = {n for n in (*score.curve, score.at) if 0 < n <= len(database)} | {len(database)}
  return retrieval_scores(
    queries,
    database,
    query_labels,
    database_labels,
    at=sorted(cuts),
    denominator=score.denominator,
    ties=score.ties,
    empty=score.empty,
    radius=score.radius,
  )


def position_of(config: ConfigDict, found: RetrievalScores) -> int:
  """Where among the cut-offs ``config.score.at`` stands; the last one is the whole database."""
  return position_among(found.cutoffs, config.score.at)


def position_among(cutoffs: Sequence[int], at: int) -> int:
  """Where a cut-off stands among others; one that is none of them is the whole database, the last.

  Args:
    cutoffs: Ascending.
    at: As ``score.at``.
  """
  return cutoffs.index(at) if at in cutoffs else len(cutoffs) - 1


def at_words(at: int) -> str:
  """The cut-off of the scores, ``score.at``, as it stands behind their names."""
  return f"@{at}" if at else "@ALL"


def without_nan(tree: Any) -> Any:
  """The same with None for NaN, the mean over no query, which JSON has no number for."""
  if isinstance(tree, dict):
    return {name: without_nan(value) for name, value in tree.items()}
  if isinstance(tree, list):
    return [without_nan(value) for value in tree]
  return None if isinstance(tree, float) and np.isnan(tree) else tree


def curves(found: RetrievalScores) -> dict[str, Any]:
  """What ``metrics.json`` says of one set of codes."""
  return {
    "cutoffs": list(found.cutoffs),
    "options": found.description,
    **{
      field: getattr(found, field).tolist()
      for field in ("mean_average_precision", "precision", "recall", "ndcg", "empty_queries")
    },
    "radius": found.radius,
    "radius_precision": found.radius_precision,
    "empty_balls": found.empty_balls,
    "irrelevant_queries": found.irrelevant_queries,
  }


def table_of(config: ConfigDict, found: Mapping[str, RetrievalScores]) -> Table:
  """One row for each set of codes; every column's cut-off stands in its head."""
  first = next(iter(found.values()))
  cut = at_words(config.score.at)
  header = [
    "method",
    f"mAP{cut}, {config.bits} bits",
    f"NDCG{cut}",
    f"precision within radius {first.radius}",
    f"queries with no item within radius {first.radius}",
  ]
  rows = []
  for name, value in found.items():
    at = position_of(config, value)
    rows.append(
      [
        name,
        f"{value.mean_average_precision[at]:.3f}",
        f"{value.ndcg[at]:.3f}",
        f"{value.radius_precision:.3f}",
        str(value.empty_balls),
      ]
    )
  return Table(header, rows)


def left_out(config: ConfigDict, found: Mapping[str, RetrievalScores]) -> list[str]:
  """How many queries each row's mAP leaves out, in a line; none where it leaves out none."""
  if config.score.empty != "drop":
    return []
  counts = ", ".join(
    f"{name} {value.empty_queries[position_of(config, value)]:.4g}" for name, value in found.items()
  )
  return [
    f"Queries with nothing relevant within the cut-off, which mAP leaves out: {counts}. NDCG "
    "leaves out those with nothing relevant in the database, the radius's precision none."
  ]


METRICS = "metrics.json"


def entry_of(
  config: ConfigDict, meaning: str, network: Any, found: Mapping[str, RetrievalScores]
) -> dict[str, Any]:
  """What ``metrics.json`` says of a code length; scores over no query are NaN.

  Args:
    config: The run's configuration.
    meaning: From `definition`.
    network: From `udh_jax.stages.network.facts`.
    found: Scores by row.
  """
  return {
    "bits": config.bits,
    "definition": meaning,
    "at": config.score.at,
    "udh_jax": importlib.import_module("udh_jax").__version__,
    "network": network,
    "mean_average_precision": {
      name: float(value.mean_average_precision[position_of(config, value)])
      for name, value in found.items()
    },
    "curves": {name: curves(value) for name, value in found.items()},
  }


def add_metrics(workdir: pathlib.Path, entry: dict[str, Any]) -> None:
  """Adds the entry of a code length to ``metrics.json``, in place of an older one of it."""
  path = workdir / METRICS
  entries = read_json(path) if path.exists() else []
  require(isinstance(entries, list), f"{path} is damaged: it is no list; remove it.")
  for entry_there in entries:
    require_fields(path, entry_there, {"bits": whole(1, 1 << 20)})
  entries = [*(e for e in entries if e["bits"] != entry["bits"]), without_nan(entry)]
  write_json(path, sorted(entries, key=lambda e: e["bits"]))


def write_in_order(
  config: ConfigDict,
  plan: Plan,
  dataset: Dataset,
  workdir: pathlib.Path,
  *,
  score: Callable[[], tuple[Scored, dict[str, float], list[Section]]],
  publish: Callable[[dict[str, float]], None],
  draw: Callable[[Scored | None], list[Section]],
) -> dict[str, float]:
  """Scores, then the network, then pictures and the report: what fails in drawing loses no score.

  Args:
    config: The run's configuration.
    plan: That has run.
    dataset: Its items.
    workdir: Where to write.
    score: Writes the scores; gives them whole, as mAP by row, and as sections. Called if the items
      can be scored.
    publish: Writes the network that made the codes, with mAP by row.
    draw: Draws, with the scores if there are any, and gives sections.

  Returns:
    mAP by row; empty where nothing is scored.
  """
  found: Scored | None = None
  scores: dict[str, float] = {}
  page: list[Section] = []
  if can_be_scored(dataset):
    found, scores, page = score()
  publish(scores)
  path = workdir / f"report_{config.bits}bits.html"
  write_page(
    path,
    title=f"{plan.title} on {config.data.name}, {config.bits} bits",
    subtitle=dataset.protocol,
    sections=[*page, *draw(found)],
  )
  say(f"Report: {path}")
  return scores


def write_tables(
  workdir: pathlib.Path, bits: int, tables: Sequence[Table], meaning: str, notes: Sequence[str] = ()
) -> Section:
  """Prints tables of scores and writes them to ``metrics_{bits}bits.md``.

  Args:
    workdir: Where to write.
    bits: Length of the codes.
    tables: The scores.
    meaning: From `definition`.
    notes: More lines to print.

  Returns:
    The tables as a section of the report.
  """
  text = "\n\n".join(markdown_table(*table) for table in tables)
  write_text(workdir / f"metrics_{bits}bits.md", f"{text}\n\n{meaning}\n")
  say("\n".join(["", text, "", meaning, *notes, ""]))
  return Section("Scores", [meaning, *notes], tables)
