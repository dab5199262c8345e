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

from udh_jax.methods.ssdh import structure_stage
from udh_jax.methods.steps import baselines_stage, encode_stage, features_stage
from udh_jax.models.parts import require_groups
from udh_jax.models.registry import create_backbone
from udh_jax.report import plots
from udh_jax.report.page import Section
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Stage
from udh_jax.stages import parts, psch, pseudo_labels, teacher
from udh_jax.stages.network import backbone_variables

PICTURED = 6  # Images whose attention is drawn.


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/psch.py``.

  Raises:
    InputError: If ``parts.groups`` does not divide the channels of the backbone, or a word of
      ``psch`` means nothing.
  """
  require_groups(create_backbone(config.teacher.backbone).feature_dim, config.parts.groups)
  psch.require_choices(config.psch)
  name = f"psch_{config.bits}bits"
  inputs = {"teacher": "teacher", "features": "features_1", "clustering": "cluster_1"}
  features = features_stage(config, 1, "teacher")
  if config.psch.similarity == "parts":
    features = Stage(features.name, parts.parts, parts.FIELDS, features.inputs)
  before = []
  if config.psch.unsure == "structure":
    before.append(structure_stage())
    inputs["structure"] = "structure"
  return [
    teacher.stage(config),
    features,
    Stage(
      "cluster_1", pseudo_labels.pseudo_labels, pseudo_labels.FIELDS, {"features": "features_1"}
    ),
    *before,
    Stage(name, psch.psch, psch.FIELDS, inputs),
    encode_stage(config, name),
    baselines_stage(config),
  ]


def pictures(
  context: Context, config: ConfigDict, outputs: Mapping[str, Any], workdir: pathlib.Path
) -> list[Section]:
  """Draws where the frozen network looks, group by group, on a few queries.

  Process 0 calls it; nothing travels.

  Args:
    context: The images.
    config: The run's configuration.
    outputs: Of the run's stages; ``teacher`` is read.
    workdir: Where ``attention.png`` goes.

  Returns:
    A section of the report, with the picture.
  """
  dataset, network = context.dataset, outputs["teacher"]
  queries = dataset.splits.query if len(dataset.splits.query) else dataset.splits.database
  rows = queries[np.linspace(0, len(queries) - 1, min(PICTURED, len(queries))).astype(int)]
  images = np.stack([dataset.images[int(row)] for row in rows])
  variables = jax.tree.map(mesh_lib.to_host, backbone_variables(network))
  _, attention = jax.jit(parts.part_maps(network, config))(variables, images)
  path = workdir / "attention.png"
  plots.attention_maps(
    path,
    images,
    np.asarray(attention),
    title=f"{config.data.name}: attention of {config.parts.groups} groups of channels",
  )
  words = "Red is where a group of the frozen network's channels looks most; each map by itself."
  return [Section("Attention", [words], picture=path)]
