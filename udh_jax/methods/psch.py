"""PSCH: pseudo labels and soft multi-part corresponding similarity.

Pseudo labels by k-means and a distance threshold, groups of feature maps with an attention map each
and similarity from their parts are the paper's (its abstract); all formulas are our own.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from udh_jax.data.types import Dataset
from udh_jax.methods import defaults
from udh_jax.methods.frozen import frozen_stages, guarded_codes_of, stages_after_training
from udh_jax.methods.steps import (
  baselines_of,
  baselines_stage,
  clustered_stages,
  enough_are_confident,
  features_stage,
  require_enough_features,
  structure_stage,
)
from udh_jax.models.parts import require_groups
from udh_jax.models.registry import create_backbone
from udh_jax.report import plots
from udh_jax.report.page import Section
from udh_jax.runtime.plan import Drawing, Plan
from udh_jax.stages import parts, psch, pseudo_labels
from udh_jax.stages.network import backbone_variables
from udh_jax.stages.teacher import teacher_stage

PICTURED = 6  # Images whose attention is drawn.


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of PSCH with their usual values (docs/method.md#usual-values).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images("psch", data, data_fields)
  config.update(
    {
      # Images within this quantile of the distances to the own centroid are confident.
      "cluster": {
        "num_clusters": 30,
        "num_restarts": 5,
        "max_iterations": 100,
        "threshold_quantile": 0.8,
        **defaults.clustered_in(),
      },
      "parts": {"groups": 8, "temperature": 1.0},
      "structure": defaults.structure(),  # read where `unsure` is "structure"
      "psch": defaults.training(
        classification_weight=1.0,
        quantisation_weight=0.1,
        similarity="parts",  # within a pseudo class; or "one"
        apart=0.0,  # the target between pseudo classes; three may well be one true class
        unsure="ignore",  # pairs with an image that is not confident; or "structure", as SSDH
        hash_start="itq",  # begins at the baseline's codes, or "random"
      ),
    }
  )
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/psch.py``.

  Raises:
    InputError: If ``parts.groups`` does not divide the channels of the backbone, or a word of
      ``psch`` is invalid.
  """
  require_groups(create_backbone(config.teacher.backbone).feature_dim, config.parts.groups)
  if config.psch.hash_start == "itq":
    require_enough_features(config, "psch.hash_start='random'")
  network, baselines = f"psch_{config.bits}bits", baselines_stage(config)
  frozen = frozen_stages(config, "psch")
  inputs = {"features": "features_1", "clustering": "cluster_1", "baselines": baselines.name}
  inputs |= frozen.inputs
  features = features_stage(config, 1, "teacher")
  if config.psch.similarity == "parts":
    features = parts.STAGE.named(features.name, **features.inputs)
  structure = []
  if config.psch.unsure == "structure":
    structure.append(structure_stage())
    inputs["structure"] = "structure"
  after, published = stages_after_training(config, network, frozen)
  codes, drawings = guarded_codes_of(config, "PSCH", frozen)
  return Plan(
    "PSCH",
    (
      teacher_stage(config),
      features,
      *clustered_stages(config, 1, pseudo_labels.STAGE),
      *structure,
      baselines,
      *frozen.before,
      psch.STAGE.named(network, teacher="teacher", **inputs),
      *after,
    ),
    published,
    (*codes, *baselines_of(config)),
    clusters=("cluster_1",),
    drawings=(*drawings, Drawing(("teacher",), draw_attention)),
    check=enough_are_confident(config.cluster),
  )


def draw_attention(
  dataset: Dataset, config: ConfigDict, outputs: Mapping[str, Any], workdir: pathlib.Path
) -> list[Section]:
  """Draws where the frozen network looks, group by group, on a few queries.

  Args:
    dataset: The images.
    config: The run's configuration.
    outputs: Of the stage ``teacher``; NumPy arrays.
    workdir: Where ``attention.png`` goes.

  Returns:
    A section of the report, with the picture.
  """
  network = outputs["teacher"]
  queries = dataset.splits.query if len(dataset.splits.query) else dataset.splits.database
  rows = queries[np.linspace(0, len(queries) - 1, min(PICTURED, len(queries))).astype(int)]
  images = np.stack([dataset.images[int(row)] for row in rows])
  _, attention = jax.jit(parts.part_maps(network, config))(backbone_variables(network), images)
  path = workdir / "attention.png"
  plots.attention_maps(
    path,
    images,
    np.asarray(attention),
    title=f"{config.data.name}: attention of {config.parts.groups} groups of channels",
  )
  words = "Red is where a group of the frozen network's channels looks most; each map by itself."
  return [Section("Attention", [words], picture=path)]
