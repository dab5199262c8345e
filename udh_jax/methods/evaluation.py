"""Scores of a finished run, each with its definition, and the pictures that go with them."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from udh_jax.data.dataset import ImageDataset
from udh_jax.files import read_json, write_json
from udh_jax.report import plots
from udh_jax.report.table import markdown_table
from udh_jax.retrieval.hamming import search
from udh_jax.retrieval.metrics import (
  average_precision_description,
  mean_average_precision,
  precision_recall_by_radius,
)
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context
from udh_jax.stages.network import facts

GALLERY_QUERIES = 8
GALLERY_NEIGHBOURS = 10


def run_codes(config: ConfigDict, outputs: Mapping[str, Any]) -> dict[str, Any]:
  """Packed codes of every image by method, the method's own first; arrays over all devices."""
  bits = f"{config.bits}bits"
  codes = {"UDH-ECC": outputs[f"encode_{bits}"]["codes"]}
  names = {"itq": "ITQ", "pca_rotation": "PCA + rotation", "lsh": "LSH"}
  for stage, suffix in ((f"tuned_floors_{bits}", ", fine-tuned teacher"), (f"floors_{bits}", "")):
    found = outputs[stage]
    codes |= {names[key] + suffix: found[key] for key in names if key in found}
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


def definition(config: ConfigDict, dataset: ImageDataset, teacher: Mapping[str, Any]) -> str:
  """What a score of this run means, in one line: metric, split, labels behind the teacher."""
  score = config.score
  metric = average_precision_description(
    at=score.at or None, denominator=score.denominator, ties=score.ties, empty=score.empty
  )
  return f"{metric}; {dataset.protocol}; labels behind the teacher: {teacher['labels_used']}"


def evaluate(
  context: Context, config: ConfigDict, outputs: Mapping[str, Any], workdir: pathlib.Path
) -> dict[str, float]:
  """Scores the codes of a run, prints the table and writes it and the pictures.

  Every process calls it, process 0 writes: ``metrics.json``, ``metrics_{bits}bits.md``,
  ``neighbours_{bits}bits.png`` and ``precision_recall_{bits}bits.png`` in the work directory.

  Args:
    context: Devices and images.
    config: The run's configuration.
    outputs: Outputs of its stages.
    workdir: Where to write.

  Returns:
    Score by method; empty where the images have no labels.
  """
  dataset = context.dataset
  num_rows = len(dataset.images)
  codes = {
    name: mesh_lib.to_host(array, num_rows) for name, array in run_codes(config, outputs).items()
  }
  rounds = range(1, config.rounds + 1)
  clusters = [mesh_lib.to_host(outputs[f"cluster_{r}"]["labels"], num_rows) for r in rounds]
  teacher = facts(outputs["teacher"])
  scores = {}
  if mesh_lib.is_main():
    scores = _write(config, dataset, codes, clusters, teacher, workdir)
  mesh_lib.barrier("scored")
  return scores


def _write(config, dataset, codes, clusters, teacher, workdir) -> dict[str, float]:
  bits = config.bits
  queries, database = dataset.splits.query, dataset.splits.database
  scored = dataset.labels is not None and len(queries) > 0
  if not scored:
    say(
      "Not scored: these images have no labels. Put them into one folder a class (labels are used "
      "for scoring only) to see scores."
    )
    queries = database[np.linspace(0, len(database) - 1, GALLERY_QUERIES).astype(int)]
  labels = dataset.labels
  first = next(iter(codes))
  shown = queries[np.linspace(0, len(queries) - 1, GALLERY_QUERIES).astype(int)]
  k = min(GALLERY_NEIGHBOURS, len(database))
  distances, neighbours = search(codes[first][shown], codes[first][database], k)
  plots.neighbours(
    workdir / f"neighbours_{bits}bits.png",
    dataset,
    shown,
    database[np.asarray(neighbours)],
    np.asarray(distances),
    title=f"{config.data.name}: each query and its {k} nearest by {first}, {bits} bits",
  )
  if not scored:
    return {}

  score = config.score
  scores, curves = {}, {}
  for name, packed in codes.items():
    parts = packed[queries], packed[database], labels[queries], labels[database]
    scores[name] = mean_average_precision(
      *parts,
      at=score.at or None,
      denominator=score.denominator,
      ties=score.ties,
      empty=score.empty,
    )
    curves[name] = precision_recall_by_radius(*parts)
  meaning = definition(config, dataset, teacher)
  plots.precision_recall(
    workdir / f"precision_recall_{bits}bits.png",
    curves,
    title=f"{config.data.name}, {bits} bits: precision and recall by Hamming radius",
    caption=dataset.protocol,
  )
  entry = {
    "bits": bits,
    "definition": meaning,
    "teacher": teacher,
    "mean_average_precision": scores,
  }
  if labels.ndim == 1:
    train = dataset.splits.train
    entry["purity"] = [purity(labels[train], c[train]) for c in clusters]
    say(
      f"Purity of the {config.cluster.num_clusters} clusters (labels used for this line only): "
      + ", ".join(f"round {number} {value:.3f}" for number, value in enumerate(entry["purity"], 1))
    )
  path = workdir / "metrics.json"
  entries = [e for e in (read_json(path) if path.exists() else []) if e["bits"] != bits]
  write_json(path, sorted([*entries, entry], key=lambda e: e["bits"]))
  table = markdown_table(
    ["method", f"mAP, {bits} bits"], [[name, f"{value:.3f}"] for name, value in scores.items()]
  )
  say(f"\n{table}\n\n{meaning}\n")
  return scores
