"""Scores of a finished run, each with its definition, and the pictures that go with them."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.binary import unpack_codes
from udh_jax.data.dataset import Dataset
from udh_jax.encoder import Encoder
from udh_jax.files import read_json, write_json, write_text
from udh_jax.report import plots
from udh_jax.report.page import Section, Table, write_page
from udh_jax.report.table import markdown_table
from udh_jax.retrieval.hamming import search
from udh_jax.retrieval.metrics import (
  RetrievalScores,
  average_precision_description,
  retrieval_scores,
)
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context, Stage
from udh_jax.stages.encode import description, hash_variables
from udh_jax.stages.network import facts

GALLERY_QUERIES = 8
GALLERY_NEIGHBOURS = 10
FLOORS = {"itq": "ITQ", "pca_rotation": "PCA + rotation", "lsh": "LSH"}
FLOOR_STAGES = {"tuned_floors": ", fine-tuned teacher", "floors": ""}


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
  for stage, suffix in FLOOR_STAGES.items():
    if f"{stage}_{bits}bits" in names:
      found = outputs[f"{stage}_{bits}bits"]
      codes |= {FLOORS[key] + suffix: found[key] for key in FLOORS if key in found}
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


def definition(config: ConfigDict, dataset: Dataset, labels_used: str) -> str:
  """What a score of this run means, in one line: metric, split, labels behind the network."""
  score = config.score
  metric = average_precision_description(
    at=score.at or None, denominator=score.denominator, ties=score.ties, empty=score.empty
  )
  return f"{metric}; {dataset.protocol}; labels behind the network: {labels_used}"


def score_codes(
  config: ConfigDict,
  queries: np.ndarray,
  database: np.ndarray,
  query_labels: np.ndarray,
  database_labels: np.ndarray,
) -> RetrievalScores:
  """All scores of packed codes by ``config.score``, at its cut-off, its curve's and the last item.

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
  )


def position_of(config: ConfigDict, found: RetrievalScores) -> int:
  """Where among the cut-offs ``config.score.at`` stands; the last one is the whole database."""
  if config.score.at in found.cutoffs:
    return found.cutoffs.index(config.score.at)
  return len(found.cutoffs) - 1


def at_words(config: ConfigDict) -> str:
  """The cut-off of the scores, as it stands behind their names."""
  return f"@{config.score.at}" if config.score.at else "@ALL"


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
  bits = config.bits
  queries, database = dataset.splits.query, dataset.splits.database
  scored = dataset.labels is not None and len(queries) > 0
  if not scored:
    say(
      "Not scored: these images have no labels. Put them into one folder a class (labels are used "
      "for scoring only) to see scores."
    )
    queries = database[np.linspace(0, len(database) - 1, GALLERY_QUERIES).astype(int)]
  heading = f"{title} on {config.data.name}, {bits} bits"

  def picture(name):
    return workdir / f"{name}_{bits}bits.png"

  def gallery(name, rows, words):
    """Draws queries with their nearest items."""
    packed, k = codes[title], min(GALLERY_NEIGHBOURS, len(database))
    distances, indices = map(np.asarray, search(packed[rows], packed[database], k))
    plots.neighbours(picture(name), dataset, rows, database[indices], distances, title=words)

  spread = queries[np.linspace(0, len(queries) - 1, GALLERY_QUERIES).astype(int)]
  gallery("neighbours", spread, f"{config.data.name}: queries, and nearest by {title}, {bits} bits")
  signs = np.asarray(unpack_codes(codes[title][database], bits), np.float32)
  with np.errstate(invalid="ignore", divide="ignore"):
    correlation = np.atleast_2d(np.corrcoef(signs.T))
  plots.bit_statistics(
    picture("bits"), (signs > 0).mean(axis=0), correlation, title=f"Bits of {title}"
  )
  sections = [
    Section(
      "Bits",
      ["Share of +1 of each bit over the database, and how far bits go together."],
      picture=picture("bits"),
    ),
    Section(
      "Queries and their nearest",
      ["Green frames share a label with the query, red ones do not." if scored else "No labels."],
      picture=picture("neighbours"),
    ),
  ]
  meaning = definition(config, dataset, about["labels_used"])
  scores: dict[str, float] = {}
  if scored:
    found = _scores(config, dataset, codes)
    at = position_of(config, found[title])
    scores = {name: float(value.mean_average_precision[at]) for name, value in found.items()}
    purities = _purities(dataset, clusters)
    _write_metrics(config, meaning, about, found, scores, purities, workdir)
    table = _table(config, found, at)
    text = markdown_table(table.header, table.rows)
    notes = _notes(found[title], purities)
    write_text(workdir / f"metrics_{bits}bits.md", f"{text}\n\n{meaning}\n")
    say("\n".join(["", text, "", meaning, *notes, ""]))
    order = np.argsort(-found[title].average_precision[:, at], kind="stable")
    few = min(GALLERY_QUERIES // 2, len(order))
    for name, rows in (("best", order[:few]), ("worst", order[::-1][:few])):
      words = f"The {few} {name} of {len(queries)} queries, by average precision"
      gallery(name, queries[rows], words)
    caption = dataset.protocol
    plots.precision_recall(
      picture("precision_recall"),
      {name: value.radius_curve for name, value in found.items()},
      title=f"{config.data.name}, {bits} bits: precision and recall by Hamming radius",
      caption=caption,
    )
    plots.precision_at(
      picture("precision_at"),
      {name: (value.cutoffs, value.precision) for name, value in found.items()},
      title=f"{config.data.name}, {bits} bits: precision of the first N",
      caption=caption,
    )
    own = found[title]
    plots.distances(
      picture("distances"),
      own.relevant_at[: bits + 1],
      (own.items_at - own.relevant_at)[: bits + 1],
      title=f"Distances of {title}, {bits} bits",
      caption=caption,
    )
    within = "Pooled over all pairs of a query and a database item, one point a radius from 0 on."
    sections = [
      Section("Scores", [meaning, *notes], [table]),
      Section("Precision and recall", [within], picture=picture("precision_recall")),
      Section(
        "Precision of the first N",
        [f"Ties {config.score.ties}; mean over the queries."],
        picture=picture("precision_at"),
      ),
      Section(
        "Hamming distances",
        ["Of pairs that share a label and of others, each adding up to 1."],
        picture=picture("distances"),
      ),
      sections[0],
      Section("Best queries", [], picture=picture("best")),
      Section("Worst queries", [], picture=picture("worst")),
      sections[1],
    ]
  sections += own_sections
  write_page(workdir / "report.html", title=heading, subtitle=dataset.protocol, sections=sections)
  return scores


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


def add_metrics(workdir: pathlib.Path, entry: dict[str, Any]) -> None:
  """Adds the entry of a code length to ``metrics.json``, in place of an older one of it."""
  path = workdir / "metrics.json"
  entries = read_json(path) if path.exists() else []
  entries = [*(e for e in entries if e["bits"] != entry["bits"]), entry]
  write_json(path, sorted(entries, key=lambda e: e["bits"]))
