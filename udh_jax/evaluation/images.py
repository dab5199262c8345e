"""Scores of a finished run, each with its definition, and the pictures that go with them."""

import pathlib

import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.binary import unpack_codes
from udh_jax.data.types import Dataset
from udh_jax.encoders.image import Encoder
from udh_jax.evaluation.found import Found
from udh_jax.evaluation.scoring import (
  add_metrics,
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
from udh_jax.files import read_json
from udh_jax.records import require_fields
from udh_jax.report import plots, sections
from udh_jax.report.page import Section, Table
from udh_jax.retrieval.metrics import TIES, RetrievalScores
from udh_jax.runtime.log import say
from udh_jax.runtime.plan import Plan
from udh_jax.stages.encode import hash_description, hash_variables
from udh_jax.stages.network import facts

AUTOMATIC = "automatic.json"  # what `udh_jax.methods.automatic` chose for a run


def purity(labels: np.ndarray, clusters: np.ndarray) -> float:
  """Part of the images that belong to the most frequent class of their cluster.

  Args:
    labels: Classes. Array of shape ``[n]``, int.
    clusters: Pseudo labels of H clusterings. Array of shape ``[n, H]``, int.

  Returns:
    A number in [0, 1], the mean over the clusterings.

  References:
    Manning et al., Introduction to Information Retrieval, 2008, section 16.3.
  """
  num_clusterings = clusters.shape[1]
  counts = np.zeros((num_clusterings, clusters.max() + 1, labels.max() + 1), np.int64)
  np.add.at(counts, (np.arange(num_clusterings), clusters, labels[:, None]), 1)
  return float(counts.max(axis=2).sum() / clusters.size)


def _publish(config, plan, dataset, network, scores, workdir) -> None:
  """Writes the hash network that `udh_jax.load_encoder` reads."""
  labels_used = facts(network)["labels_used"]
  about = {
    **hash_description(network, config),
    "picture_size": dataset.image_shape[0],
    "labels_used": labels_used,
    "method": plan.title,
    "scores": without_nan(scores),
    "definition": definition(config, dataset, labels_used) if scores else None,
  }
  folder = workdir / f"encoder_{config.bits}bits"
  Encoder(hash_variables(network), about).save(folder)
  say(f"Hash network for your own pictures: {folder}")


def write(
  config: ConfigDict, plan: Plan, dataset: Dataset, run: Found, workdir: pathlib.Path
) -> dict[str, float]:
  """Writes what a run on images leaves for people; process 0 calls it.

  Args:
    config: The run's configuration.
    plan: That has run.
    dataset: The images.
    run: What it made.
    workdir: Where to write.

  Returns:
    mAP by method; empty where the images have no labels.
  """
  codes = {name: found.query["image"] for name, found in run.codes.items()}

  def score():
    found = _scores(config, dataset, codes)
    return found, *_write_scores(config, plan, dataset, run, found, workdir)

  def draw(found):
    own_sections = [
      section
      for drawing, outputs in zip(plan.drawings, run.drawn, strict=True)
      for section in drawing.draw(dataset, config, outputs, workdir)
    ]
    drawn = _drawn(config, plan.title, dataset, codes[plan.title], found, workdir)
    return [*drawn, *own_sections, *_chosen(workdir)]

  return write_in_order(
    config,
    plan,
    dataset,
    workdir,
    score=score,
    publish=lambda scores: _publish(config, plan, dataset, run.network, scores, workdir),
    draw=draw,
  )


def _write_scores(
  config, plan, dataset, run, found, workdir
) -> tuple[dict[str, float], list[Section]]:
  """Writes the table and the metrics; returns mAP by method, and the table as a section."""
  about = facts(run.network)
  meaning = definition(config, dataset, about["labels_used"])
  purities = _purities(dataset, run.clusters)
  entry = {**entry_of(config, meaning, about, found), "purity": purities}
  add_metrics(workdir, entry)
  notes = _notes(config, found[plan.title], found, purities)
  section = write_tables(workdir, config.bits, [table_of(config, found)], meaning, notes)
  return entry["mean_average_precision"], [section]


def _drawn(config, title, dataset, own, found, workdir) -> list[Section]:
  """The pictures of the codes ``own``, and where they were scored those of the scores."""

  def picture(name):
    return workdir / f"{name}_{config.bits}bits.png"

  def gallery(name, rows, **words):
    return sections.gallery(picture(name), dataset, rows, own, own, **words)

  signs = np.asarray(unpack_codes(own[dataset.splits.database], config.bits), np.float32)
  with np.errstate(invalid="ignore", divide="ignore"):
    correlation = np.atleast_2d(np.corrcoef(signs.T))
  plots.bit_statistics(
    picture("bits"), (signs > 0).mean(axis=0), correlation, title=f"Bits of {title}"
  )
  of_bits = Section(
    "Bits",
    ["Share of +1 of each bit over the database, and how strongly bits are correlated."],
    picture=picture("bits"),
  )
  nearest = gallery(
    "neighbours",
    sections.some_queries(dataset),
    heading="Queries and their nearest",
    title=f"{config.data.name}: queries, and nearest by {title}, {config.bits} bits",
  )
  if not found:
    return [of_bits, nearest]
  precision = found[title].average_precision[:, position_of(config, found[title])]
  # Of queries that score alike any may be shown: not the first ones, which are often of one class.
  order = np.lexsort((np.random.default_rng(0).permutation(len(precision)), -precision))
  few = min(sections.GALLERY_QUERIES // 2, len(order))
  extremes = [
    gallery(
      name,
      dataset.splits.query[rows],
      heading=f"{name.capitalize()} queries",
      title=f"The {few} {name} of {len(order)} queries, by average precision (AP)",
      notes=[f"AP {precision[row]:.2f}" for row in rows],
    )
    for name, rows in (("best", order[:few]), ("worst", order[::-1][:few]))
  ]
  return [
    sections.precision_recall(
      picture("precision_recall"),
      found,
      heading="Precision and recall",
      title=f"{config.data.name}, {config.bits} bits: precision and recall by Hamming radius",
      caption=dataset.protocol,
    ),
    *_curves_of_scores(config, title, dataset, found, picture),
    of_bits,
    *extremes,
    nearest,
  ]


def _chosen(workdir: pathlib.Path) -> list[Section]:
  """What was "auto" in the configuration, and the values it got; nothing where nothing was."""
  path = workdir / AUTOMATIC
  chosen = require_fields(path, read_json(path), {}) if path.exists() else {}
  rows = [[field, str(value)] for field, value in chosen.items()]
  words = "Fields that were auto in the configuration; no label was read for them."
  table = Table(["field", "value"], rows)
  return [Section("Chosen from the pictures", [words], [table])] if rows else []


def _curves_of_scores(config, title, dataset, found, picture) -> list[Section]:
  """Precision of the first N of all methods; distances within and across classes of the own."""
  bits, own, caption = config.bits, found[title], dataset.protocol
  plots.precision_at(
    picture("precision_at"),
    {name: (value.cutoffs, value.precision) for name, value in found.items()},
    title=f"{config.data.name}, {bits} bits: precision of the first N",
    caption=caption,
  )
  plots.distances(
    picture("distances"),
    own.relevant_at[: bits + 1],
    (own.items_at - own.relevant_at)[: bits + 1],
    title=f"Distances of {title}, {bits} bits",
    caption=caption,
  )
  return [
    Section(
      "Precision of the first N",
      [f"Mean over the queries, {TIES[config.score.ties]}."],
      picture=picture("precision_at"),
    ),
    Section(
      "Hamming distances",
      ["Of pairs that share a label and of others, each adding up to 1."],
      picture=picture("distances"),
    ),
  ]


def _scores(config, dataset, codes) -> dict[str, RetrievalScores]:
  queries, database, labels = dataset.splits.query, dataset.splits.database, dataset.labels
  return {
    name: score_codes(config, packed[queries], packed[database], labels[queries], labels[database])
    for name, packed in codes.items()
  }


def _purities(dataset, clusters) -> list[float]:
  if dataset.labels.ndim != 1:
    return []
  train = dataset.splits.train
  train = train[dataset.labels[train] >= 0]
  return [purity(dataset.labels[train], found[train]) for found in clusters if len(train)]


def _notes(config, own, found, purities) -> list[str]:
  notes = [
    f"{own.irrelevant_queries} of {own.num_queries} queries have no relevant item in the database; "
    "a query with nothing within the radius counts 0.",
    *left_out(config, found),
  ]
  if purities:
    notes.append(
      "Purity of the clusters (labels used for this line only): "
      + ", ".join(f"round {number} {value:.3f}" for number, value in enumerate(purities, 1))
    )
  return notes
