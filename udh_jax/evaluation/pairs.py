"""Scores of a cross-modal run in every direction, and the pictures that go with them."""

import pathlib

from ml_collections import ConfigDict

from udh_jax.data.types import Dataset
from udh_jax.encoders.pair import PairEncoder
from udh_jax.evaluation.found import Codes, Found
from udh_jax.evaluation.scoring import (
  add_metrics,
  at_words,
  definition,
  entry_of,
  left_out,
  position_of,
  score_codes,
  table_of,
  without_nan,
  write_in_order,
  write_tables,
)
from udh_jax.report import sections
from udh_jax.report.page import Section, Table
from udh_jax.retrieval.metrics import RetrievalScores
from udh_jax.runtime.log import say
from udh_jax.runtime.plan import Plan
from udh_jax.stages.encode import pair_description
from udh_jax.stages.network import facts

DIRECTIONS = {
  "image→text": ("image", "text"),
  "text→image": ("text", "image"),
  "image→image": ("image", "image"),
  "text→text": ("text", "text"),
}
ACROSS = tuple(DIRECTIONS)[:2]


def _publish(config, plan, dataset, network, scores, workdir) -> None:
  """Writes the networks that `udh_jax.load_encoder` reads."""
  labels_used = facts(network)["labels_used"]
  about = {
    **pair_description(network, config),
    "picture_size": dataset.image_shape[0] if dataset.has_pictures else 0,
    "image_width": 0 if dataset.has_pictures else dataset.image_shape[0],
    "text_width": dataset.texts.shape[1],
    "words": list(dataset.words),
    "tokenizer": dataset.tokenizer,
    "method": plan.title,
    "scores": without_nan(scores),
    "definition": definition(config, dataset, labels_used) if scores else None,
  }
  folder = workdir / f"encoder_{config.bits}bits"
  PairEncoder(dict(network["variables"]), about).save(folder)
  for_what = "your own pictures and texts" if dataset.has_pictures else "such features, from Python"
  say(f"Networks for {for_what}: {folder}")


def _score(config, dataset, codes) -> dict[str, dict[str, RetrievalScores]]:
  queries, database, labels = dataset.splits.query, dataset.splits.database, dataset.labels
  return {
    name: {
      direction: score_codes(
        config,
        found.query[query][queries],
        found.database[item][database],
        labels[queries],
        labels[database],
      )
      for direction, (query, item) in DIRECTIONS.items()
      if query != item or not _is_shared(found)
    }
    for name, found in codes.items()
  }


def _is_shared(codes: Codes) -> bool:
  """Whether the database has one code for a pair: then within a side is across sides."""
  return codes.database["image"] is codes.database["text"]


def _table(config, found) -> Table:
  at, bits = at_words(config.score.at), f"{config.bits} bits"
  header = ["method", *(f"{direction} mAP{at}, {bits}" for direction in DIRECTIONS)]
  if config.score.at:
    header += [f"{direction} mAP@ALL" for direction in ACROSS]
  rows = []
  for name, by_direction in found.items():
    values = {
      direction: value.mean_average_precision[position_of(config, value)]
      for direction, value in by_direction.items()
    }
    row = [f"{values[one]:.3f}" if one in values else "" for one in DIRECTIONS]
    if config.score.at:
      row += [f"{by_direction[one].mean_average_precision[-1]:.3f}" for one in ACROSS]
    rows.append([name, *row])
  return Table(header, rows)


def write(
  config: ConfigDict, plan: Plan, dataset: Dataset, run: Found, workdir: pathlib.Path
) -> dict[str, float]:
  """Writes what a run on pairs leaves for people; process 0 calls it.

  Args:
    config: The run's configuration.
    plan: That has run.
    dataset: The pairs.
    run: What it made.
    workdir: Where to write.

  Returns:
    mAP by "method, direction"; empty where the pairs have no labels.
  """

  def score():
    found = _score(config, dataset, run.codes)
    return found, *_write_scores(config, dataset, run, found, workdir)

  def draw(found):
    notes = [Section("Data", dataset.notes)] if dataset.notes else []
    return [*_drawn(config, plan.title, dataset, run.codes[plan.title], found, workdir), *notes]

  return write_in_order(
    config,
    plan,
    dataset,
    workdir,
    score=score,
    publish=lambda scores: _publish(config, plan, dataset, run.network, scores, workdir),
    draw=draw,
  )


def _write_scores(config, dataset, run, found, workdir) -> tuple[dict[str, float], list[Section]]:
  """Writes the table and the metrics; returns mAP by method and direction, and the section."""
  about = facts(run.network)
  meaning = definition(config, dataset, about["labels_used"])
  flat = {
    f"{name}, {direction}": value
    for name, by_direction in found.items()
    for direction, value in by_direction.items()
  }
  entry = entry_of(config, meaning, about, flat)
  add_metrics(workdir, entry)
  tables = [_table(config, found), table_of(config, flat)]
  section = write_tables(workdir, config.bits, tables, meaning, left_out(config, flat))
  return entry["mean_average_precision"], [section]


def _drawn(config, title, dataset, own, found, workdir) -> list[Section]:
  """Curves of all methods where they were scored, and the nearest by ``own``, both directions."""
  bits, rows = config.bits, sections.some_queries(dataset)
  curves_of, nearest = [], []
  for direction in ACROSS:
    query, item = DIRECTIONS[direction]
    if found:
      section = sections.precision_recall(
        workdir / f"precision_recall_{query}_to_{item}_{bits}bits.png",
        {name: by_direction[direction] for name, by_direction in found.items()},
        heading=f"Precision and recall, {direction}",
        title=f"{config.data.name}, {bits} bits, {direction}: precision and recall by radius",
        caption=dataset.protocol,
      )
      curves_of.append(section)
    section = sections.gallery(
      workdir / f"{query}_to_{item}_{bits}bits.png",
      dataset,
      rows,
      own.query[query],
      own.database[item],
      heading=f"Nearest {item}s of some {query}s",
      title=f"{config.data.name}: each {query} and its nearest {item}s by {title}, {bits} bits",
      sides=(query, item),
    )
    nearest.append(section)
  return [*curves_of, *nearest]
