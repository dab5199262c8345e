"""Scores of a cross-modal run in every direction, and the pictures that go with them."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.binary import pack_codes, sign
from udh_jax.data.types import Dataset
from udh_jax.encoders.pair import PairEncoder
from udh_jax.evaluation.scoring import (
  add_metrics,
  at_words,
  can_be_scored,
  curves,
  definition,
  position_of,
  score_codes,
  write_table,
)
from udh_jax.methods.djsrh import teacher_bits
from udh_jax.report import sections
from udh_jax.report.page import Section, Table, write_page
from udh_jax.retrieval.metrics import RetrievalScores
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context, Stage
from udh_jax.stages.encode_pairs import description
from udh_jax.stages.network import facts

DIRECTIONS = {
  "image→text": ("image", "text"),
  "text→image": ("text", "image"),
  "image→image": ("image", "image"),
  "text→text": ("text", "text"),
}
ACROSS = tuple(DIRECTIONS)[:2]


class PairCodes(NamedTuple):
  """Packed codes of every pair.

  Attributes:
    query: Of queries, by "image" and "text". uint8 arrays of shape ``[n, bytes]``.
    database: Of database items, the same way.
  """

  query: dict[str, np.ndarray]
  database: dict[str, np.ndarray]


_codes = jax.jit(lambda outputs: pack_codes(sign(outputs)))  # scaled rows have the same signs


def run_codes(
  context: Context,
  config: ConfigDict,
  title: str,
  stages: Sequence[Stage],
  outputs: Mapping[str, Any],
) -> dict[str, PairCodes]:
  """Codes by method: the method's own, its learned codes where it has some, its teacher's."""
  num_rows = len(context.dataset.images)
  by_name = {stage.name: stage for stage in stages}

  def of_networks(name):
    codes = {
      side: mesh_lib.to_host(outputs[name][f"{side}_codes"], num_rows) for side in ("image", "text")
    }
    return PairCodes(codes, codes)

  encoding = f"encode_{config.bits}bits"
  found = {title: of_networks(encoding)}
  student = outputs[by_name[encoding].inputs["networks"]]
  if "learned_codes" in student:
    learned = mesh_lib.to_host(student["learned_codes"], num_rows)
    found[f"{title}, learned codes in the database"] = PairCodes(
      found[title].query, {"image": learned, "text": learned}
    )
  for name in by_name:
    if name.startswith("similarity_"):
      bits = teacher_bits(config)
      length = "" if bits == config.bits else f", {bits} bits"
      codes = {
        side: mesh_lib.to_host(_codes(outputs[name][f"{side}s"]), num_rows)
        for side in ("image", "text")
      }
      found[f"DJSRH, its teacher{length}"] = PairCodes(codes, codes)
  return found


def evaluate(
  context: Context,
  config: ConfigDict,
  title: str,
  stages: Sequence[Stage],
  outputs: Mapping[str, Any],
  workdir: pathlib.Path,
) -> dict[str, float]:
  """Scores the codes of a run in every direction and writes what it leaves for people.

  Every process calls it, process 0 writes, in the work directory: ``metrics.json``, the table
  ``metrics_{bits}bits.md``, pictures, ``report.html`` with all of it, and both networks,
  ``encoder_{bits}bits``.

  Args:
    context: Devices and pairs.
    config: The run's configuration.
    title: Name of the method.
    stages: That have run.
    outputs: Theirs.
    workdir: Where to write.

  Returns:
    mAP by "method, direction"; empty where the pairs have no labels.
  """
  codes = run_codes(context, config, title, stages, outputs)
  by_name = {stage.name: stage for stage in stages}
  network = outputs[by_name[f"encode_{config.bits}bits"].inputs["networks"]]
  about = facts(network)
  scores = {}
  if mesh_lib.is_main():
    scores = _write(config, title, context.dataset, codes, about, workdir)
    _publish(config, title, context.dataset, network, scores, workdir)
  mesh_lib.barrier("scored")
  return scores


def _publish(config, title, dataset, network, scores, workdir) -> None:
  """Writes the networks that `udh_jax.load_encoder` reads."""
  about = {
    **description(network, config),
    "picture_size": dataset.image_shape[0] if dataset.has_pictures else 0,
    "image_width": 0 if dataset.has_pictures else dataset.image_shape[0],
    "text_width": dataset.texts.shape[1],
    "words": list(dataset.words),
    "method": title,
    "scores": scores,
    "definition": definition(config, dataset, facts(network)["labels_used"]) if scores else None,
  }
  folder = workdir / f"encoder_{config.bits}bits"
  variables = jax.tree.map(mesh_lib.to_host, dict(network["variables"]))
  PairEncoder(variables, about).save(folder)
  say(f"Networks for one's own pictures and texts: {folder}")


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
    }
    for name, found in codes.items()
  }


def _table(config, found) -> Table:
  at, bits = at_words(config), f"{config.bits} bits"
  header = ["method", *(f"{direction} mAP{at}, {bits}" for direction in DIRECTIONS)]
  if config.score.at:
    header += [f"{direction} mAP@ALL" for direction in ACROSS]
  rows = []
  for name, by_direction in found.items():
    values = [v.mean_average_precision[position_of(config, v)] for v in by_direction.values()]
    if config.score.at:
      values += [by_direction[direction].mean_average_precision[-1] for direction in ACROSS]
    rows.append([name, *(f"{value:.3f}" for value in values)])
  return Table(header, rows)


def _write(config, title, dataset: Dataset, codes, about, workdir) -> dict[str, float]:
  bits, own = config.bits, codes[title]
  rows = sections.some_queries(dataset)
  page = []
  for direction in ACROSS:
    query, item = DIRECTIONS[direction]
    page.append(
      sections.gallery(
        workdir / f"{query}_to_{item}_{bits}bits.png",
        dataset,
        rows,
        own.query[query],
        own.database[item],
        heading=f"Nearest {item}s of some {query}s",
        title=f"{config.data.name}: each {query} and its nearest {item}s by {title}, {bits} bits",
        sides=(query, item),
      )
    )
  scores: dict[str, float] = {}
  if can_be_scored(dataset):
    meaning = definition(config, dataset, about["labels_used"])
    found = _score(config, dataset, codes)
    flat = {
      f"{name}, {direction}": value
      for name, by_direction in found.items()
      for direction, value in by_direction.items()
    }
    scores = {
      name: float(value.mean_average_precision[position_of(config, value)])
      for name, value in flat.items()
    }
    table = _table(config, found)
    write_table(workdir, bits, table, meaning)
    add_metrics(
      workdir,
      {
        "bits": bits,
        "definition": meaning,
        "network": about,
        "mean_average_precision": scores,
        "curves": {name: curves(value) for name, value in flat.items()},
      },
    )
    figures = [
      sections.precision_recall(
        workdir / f"precision_recall_{'_to_'.join(DIRECTIONS[direction])}_{bits}bits.png",
        {name: by_direction[direction] for name, by_direction in found.items()},
        heading=f"Precision and recall, {direction}",
        title=f"{config.data.name}, {bits} bits, {direction}: precision and recall by radius",
        caption=dataset.protocol,
      )
      for direction in ACROSS
    ]
    page = [Section("Scores", [meaning], [table]), *figures, *page]
  write_page(
    workdir / "report.html",
    title=f"{title} on {config.data.name}, {bits} bits",
    subtitle=dataset.protocol,
    sections=page,
  )
  return scores
