"""PSCH: pseudo labels and soft multi-part corresponding similarity.

Pseudo labels by k-means and a distance threshold, groups of feature maps with an attention map each
and similarity from their parts are the paper's (its abstract); all formulas are our own, and so is
that features, clustering and training may be repeated in rounds.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.methods import defaults
from udh_jax.methods.frozen import frozen_stages, guarded_codes_of, stages_after_training
from udh_jax.methods.steps import (
  averaged_stages,
  baselines_of,
  baselines_stage,
  clustered_stages,
  enough_are_confident,
  features_stage,
  of_round,
  require_enough_features,
  require_one_side,
  structure_stage,
)
from udh_jax.models.parts import require_groups
from udh_jax.models.registry import create_backbone
from udh_jax.report import plots
from udh_jax.report.page import Section
from udh_jax.runtime.plan import CodeSource, Drawing, Plan
from udh_jax.runtime.stage import Stage
from udh_jax.stages import features, parts, psch, pseudo_labels
from udh_jax.stages.network import backbone_variables
from udh_jax.stages.teacher import teacher_stage

PICTURED = 6  # Images whose attention is drawn.


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of PSCH with their default values (docs/method.md#default-values).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images("psch", data, data_fields)
  config.update(
    {
      # features -> cluster -> psch, so many times, each from the network of the one before.
      "rounds": 1,
      "round_bits": 32,  # codes of all rounds but the last, which codes of every length share
      "networks": 1,  # in the round before the last: the mean of so many, from other seeds, goes on
      # What the last round trains: the network with its codes, or the hash "layer" alone, on the
      # features of the network before.
      "last_round": "network",
      "layer": layer_training(),
      # Images within this quantile of the distances to the own centroid are confident.
      "cluster": {
        "num_clusters": 30,
        "num_clusterings": 1,  # from other starts; what they agree on counts for more
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
        classifier="codes",  # what the classifier of pseudo labels reads; or "features"
        similarity="parts",  # within a pseudo class; or "one"
        apart=0.0,  # the target between pseudo classes; three may well be one true class
        unsure="ignore",  # pairs with an image that is not confident; or "structure", as SSDH
        hash_start="itq",  # begins at the baseline's codes, or "random"
      ),
    }
  )
  return config


def layer_training() -> dict[str, Any]:
  """Fields of `udh_jax.stages.psch.layer`."""
  return {
    "steps": 1500,
    "batch_size": 256,
    "learning_rate": 3e-5,
    "head_learning_rate": 3e-3,
    "weight_decay": 1e-4,
  }


def _require_rounds(config: ConfigDict) -> None:
  """Refuses what asks for a round before the last where there is none.

  Args:
    config: Of the method; those of earlier versions have one network and train it in each round.

  Raises:
    InputError: If so, or the layer that is learned alone would not start at ITQ's.
  """
  alone = config.get("last_round") == "layer"
  require(
    config.rounds > 1 or config.get("networks", 1) == 1,
    f"networks is {config.get('networks')}, but rounds is 1: the mean of several networks is what "
    "the last round starts from; set rounds to 2 or more, or networks to 1.",
  )
  require(
    config.rounds > 1 or not alone,
    "last_round is 'layer', but rounds is 1: there is no trained network to learn a layer on; set "
    "rounds to 2 or more.",
  )
  require(
    config.psch.hash_start == "itq" or not alone,
    f"psch.hash_start is {config.psch.hash_start!r}, but last_round is 'layer', which hands on the "
    "mean of a trained layer and its start; set psch.hash_start to 'itq'.",
  )
  if alone:
    require_one_side(config, "last_round is 'layer'")


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/psch.py``.

  Raises:
    InputError: If ``parts.groups`` does not divide the channels of the backbone, or a word of
      ``psch`` is invalid.
  """
  require_groups(create_backbone(config.teacher.backbone).feature_dim, config.parts.groups)
  if config.psch.hash_start == "itq":
    otherwise = "psch.hash_start='random'"
    require_enough_features(config, otherwise)
    if config.rounds > 1:
      require_enough_features(config, otherwise, field="round_bits")
  network = f"psch_{config.bits}bits"
  reading = parts.STAGE if config.psch.similarity == "parts" else features.STAGE
  frozen = frozen_stages(config, "psch", clustering=pseudo_labels.STAGE, reading=reading)
  require(
    not frozen.stays or config.psch.hash_start == "itq",
    f"psch.hash_start is {config.psch.hash_start!r}, but psch.trained is 'head': codes of such a "
    "network start at discriminant ITQ's; set psch.hash_start to 'itq' or train the backbone.",
  )
  require(
    not frozen.stays or psch.classifier_of(config) == "codes",
    "psch.classifier is 'features', but psch.trained is 'head': such a classifier would teach the "
    "codes nothing; set psch.classifier to 'codes' or train the backbone.",
  )
  _require_rounds(config)
  alone = config.get("last_round") == "layer"
  rounds: list[Stage] = []
  rows: tuple[CodeSource, ...] = ()
  teacher = "teacher"
  for number in range(1, config.rounds + 1):
    last = number == config.rounds
    bits = config.bits if last else config.round_bits
    baselines = baselines_stage(
      config, of_round("baselines", number), f"features_{number}", bits=bits
    )
    stages = [
      features_stage(config, number, teacher, reading),
      *clustered_stages(config, number, pseudo_labels.STAGE),
      baselines,
    ]
    if number == 1 and bits != config.bits:
      stages.append(baselines_stage(config))
    inputs = {"features": f"features_{number}", "clustering": f"cluster_{number}"}
    if frozen.stays:
      inputs = {"features": frozen.features, "clustering": frozen.clustering}
      teacher = frozen.teacher
    inputs |= {"baselines": baselines.name, **frozen.inputs}
    if number == 1:
      stages += frozen.before
    if config.psch.unsure == "structure":
      stages.append(structure_stage(number, inputs["features"]))
      inputs["structure"] = stages[-1].name
    if number > 1:
      rows = baselines_of(config, of_round("baselines", number), f", features of round {number}")
    name = network if last else f"psch_{number}_{bits}bits"
    learning = psch.LAYER if last and alone else psch.STAGE
    training = learning.with_options(seed_offset=number - 1).with_settings(bits=bits)
    training = training.named(name, teacher=teacher, **inputs)
    count = config.get("networks", 1) if number == config.rounds - 1 else 1
    rounds += [*stages, *averaged_stages(config, training, count)]
    teacher = name
  read = {"features": f"features_{config.rounds}"} if alone else {}
  after, published = stages_after_training(config, network, frozen, **read)
  codes, drawings = guarded_codes_of(config, "PSCH", frozen)
  return Plan(
    "PSCH",
    (
      teacher_stage(config),
      *rounds,
      *after,
    ),
    published,
    (*codes, *rows, *baselines_of(config)),
    clusters=frozen.clusterings(config.rounds),
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
  maps = parts.part_maps(network, config, image_size=config.features.image_sizes[0])
  _, attention = jax.jit(maps)(backbone_variables(network), images)
  path = workdir / "attention.png"
  plots.attention_maps(
    path,
    images,
    np.asarray(attention),
    title=f"{config.data.name}: attention of {config.parts.groups} groups of channels",
  )
  words = "Red is where a group of the frozen network's channels looks most; each map by itself."
  return [Section("Attention", [words], picture=path)]
