"""Scores of a finished run, each with its definition, and the pictures that go with them."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.binary import unpack_codes
from udh_jax.encoders.image import Encoder
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
from udh_jax.report import plots, sections
from udh_jax.report.page import Section, Table, write_page
from udh_jax.retrieval.metrics import TIES, RetrievalScores
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context, Stage
from udh_jax.stages.encode import description, hash_variables
from udh_jax.stages.network import facts

BASELINES = {"itq": "ITQ", "pca_rotation": "PCA + rotation", "lsh": "LSH"}
BASELINE_STAGES = {"tuned_baselines": ", fine-tuned teacher", "baselines": ""}


def run_codes(
  title: str, bits: int, names: Sequence[str], outputs: Mapping[str, Any]
) -> dict[str, Any]:
  """Packed codes of every image by method, the method's own first; arrays over all devices.

  Args:
    title: Of the method.
    bits: Length of the codes.
    names: Of the stages that have run.
    outputs: By stage.
  """
  codes = {title: outputs[f"encode_{bits}bits"]["codes"]}
  for stage, suffix in BASELINE_STAGES.items():
    if f"{stage}_{bits}bits" in names:
      found = outputs[f"{stage}_{bits}bits"]
      codes |= {BASELINES[key] + suffix: found[key] for key in BASELINES if key in found}
  return codes


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


def evaluate(
  context: Context,
  config: ConfigDict,
  title: str,
  stages: Sequence[Stage],
  outputs: Mapping[str, Any],
  workdir: pathlib.Path,
  *,
  pictures: Callable[..., list[Section]] = lambda *arguments: [],
) -> dict[str, float]:
  """Scores the codes of a run on images, prints the table and writes what a run leaves for people.

  Every process calls it, process 0 writes, in the work directory: ``metrics.json``, the table
  ``metrics_{bits}bits.md``, pictures, ``report.html`` with all of it, and the hash
  network, ``encoder_{bits}bits``.

  Args:
    context: Devices and images.
    config: The run's configuration.
    title: Name of the method.
    stages: That have run; ``encode_{bits}bits`` has the hash network for its ``student``.
    outputs: Theirs.
    workdir: Where to write.
    pictures: ``(context, config, outputs, workdir) -> sections``: draws what the method alone has.

  Returns:
    mAP by method; empty where the images have no labels.
  """
  num_rows = len(context.dataset.images)
  by_name = {stage.name: stage for stage in stages}
  codes = {
    name: mesh_lib.to_host(array, num_rows)
    for name, array in run_codes(title, config.bits, list(by_name), outputs).items()
  }
  clusters = [
    mesh_lib.to_host(outputs[name]["labels"], num_rows)
    for name in by_name
    if name.startswith("cluster_")
  ]
  student = outputs[by_name[f"encode_{config.bits}bits"].inputs["student"]]
  about = facts(student)
  scores = {}
  if mesh_lib.is_main():
    own = pictures(context, config, outputs, workdir)
    scores = _write(config, title, context.dataset, codes, clusters, about, own, workdir)
    _publish(config, title, context.dataset, student, scores, workdir)
  mesh_lib.barrier("scored")
  return scores


def _publish(config, title, dataset, student, scores, workdir) -> None:
  """Writes the hash network that `udh_jax.load_encoder` reads."""
  about = {
    **description(student, config),
    "picture_size": dataset.image_shape[0],
    "labels_used": facts(student)["labels_used"],
    "method": title,
    "scores": scores,
    "definition": definition(config, dataset, facts(student)["labels_used"]) if scores else None,
  }
  folder = workdir / f"encoder_{config.bits}bits"
  Encoder(jax.tree.map(mesh_lib.to_host, hash_variables(student)), about).save(folder)
  say(f"Hash network for one's own pictures: {folder}")


def _write(
  config, title, dataset, codes, clusters, about, own_sections, workdir
) -> dict[str, float]:
  bits, own = config.bits, codes[title]
  queries, database = dataset.splits.query, dataset.splits.database

  def picture(name):
    return workdir / f"{name}_{bits}bits.png"

  signs = np.asarray(unpack_codes(own[database], bits), np.float32)
  with np.errstate(invalid="ignore", divide="ignore"):
    correlation = np.atleast_2d(np.corrcoef(signs.T))
  plots.bit_statistics(
    picture("bits"), (signs > 0).mean(axis=0), correlation, title=f"Bits of {title}"
  )
  of_bits = Section(
    "Bits",
    ["Share of +1 of each bit over the database, and how far bits go together."],
    picture=picture("bits"),
  )
  nearest = sections.gallery(
    picture("neighbours"),
    dataset,
    sections.some_queries(dataset),
    own,
    own,
    heading="Queries and their nearest",
    title=f"{config.data.name}: queries, and nearest by {title}, {bits} bits",
  )
  scores: dict[str, float] = {}
  page = [of_bits, nearest]
  if can_be_scored(dataset):
    meaning = definition(config, dataset, about["labels_used"])
    found = _scores(config, dataset, codes)
    at = position_of(config, found[title])
    scores = {name: float(value.mean_average_precision[at]) for name, value in found.items()}
    purities = _purities(dataset, clusters)
    _write_metrics(config, meaning, about, found, scores, purities, workdir)
    table = _table(config, found, at)
    notes = _notes(found[title], purities)
    write_table(workdir, bits, table, meaning, notes)
    order = np.argsort(-found[title].average_precision[:, at], kind="stable")
    few = min(sections.GALLERY_QUERIES // 2, len(order))
    extremes = [
      sections.gallery(
        picture(name),
        dataset,
        queries[rows],
        own,
        own,
        heading=f"{name.capitalize()} queries",
        title=f"The {few} {name} of {len(queries)} queries, by average precision",
      )
      for name, rows in (("best", order[:few]), ("worst", order[::-1][:few]))
    ]
    page = [
      Section("Scores", [meaning, *notes], [table]),
      sections.precision_recall(
        picture("precision_recall"),
        found,
        heading="Precision and recall",
        title=f"{config.data.name}, {bits} bits: precision and recall by Hamming radius",
        caption=dataset.protocol,
      ),
      *_curves_of_scores(config, title, dataset, found, picture),
      of_bits,
      *extremes,
      nearest,
    ]
  write_page(
    workdir / "report.html",
    title=f"{title} on {config.data.name}, {bits} bits",
    subtitle=dataset.protocol,
    sections=[*page, *own_sections],
  )
  return scores


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
  return [purity(dataset.labels[train], found[train]) for found in clusters]


def _table(config, found, at) -> Table:
  """One row a method; every column's cut-off stands in its head."""
  first = next(iter(found.values()))
  cut = at_words(config)
  header = [
    "method",
    f"mAP{cut}, {config.bits} bits",
    f"NDCG{cut}",
    f"precision within radius {first.radius}",
    "queries with none within",
  ]
  rows = [
    [
      name,
      f"{value.mean_average_precision[at]:.3f}",
      f"{value.ndcg[at]:.3f}",
      f"{value.radius_precision:.3f}",
      str(value.empty_balls),
    ]
    for name, value in found.items()
  ]
  return Table(header, rows)


def _notes(own: RetrievalScores, purities) -> list[str]:
  notes = [
    f"{own.irrelevant_queries} of {own.num_queries} queries have no relevant item in the database; "
    "a query with nothing within the radius counts 0."
  ]
  if purities:
    notes.append(
      "Purity of the clusters (labels used for this line only): "
      + ", ".join(f"round {number} {value:.3f}" for number, value in enumerate(purities, 1))
    )
  return notes


def _write_metrics(config, meaning, about, found, scores, purities, workdir) -> None:
  entry = {
    "bits": config.bits,
    "definition": meaning,
    "network": about,
    "mean_average_precision": scores,
    "purity": purities,
    "curves": {name: curves(value) for name, value in found.items()},
  }
  add_metrics(workdir, entry)
