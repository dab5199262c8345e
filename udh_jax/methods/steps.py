"""Stages and rows of tables that several methods have in common."""

import functools
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from udh_jax.clustering.equal_size_kmeans import require_sizes
from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.files import write_json
from udh_jax.models.registry import create_backbone
from udh_jax.report.page import Section, Table
from udh_jax.runtime.log import say
from udh_jax.runtime.plan import CodeSource, Drawing, Plan
from udh_jax.runtime.stage import Stage
from udh_jax.stages import (
  baselines,
  discriminant,
  encode,
  features,
  guard,
  partitions,
  structure,
  views,
)
from udh_jax.stages import start as start_lib
from udh_jax.stages.pseudo_labels import confident_count
from udh_jax.stages.teacher import teacher_stage

BASELINE_TITLES = {"itq": "ITQ", "pca_rotation": "PCA + rotation", "lsh": "LSH"}


def features_stage(config: ConfigDict, number: int, teacher: str) -> Stage:
  """Features of round ``number``, counted from 1, by the network of the stage ``teacher``."""
  sizes = config.features.image_sizes
  stage = features.STAGE.with_options(image_size=sizes[min(number, len(sizes)) - 1])
  return stage.named(f"features_{number}", teacher=teacher)


def structure_stage() -> Stage:
  """The spread of the features' distances."""
  return structure.STAGE.named("structure", features="features_1")


class Frozen(NamedTuple):
  """What a method does on a network that stays as it is, and how it guards its codes.

  Attributes:
    before: Stages that make views, clusterings and the start; none without a section ``views``.
    inputs: Of trainings, by role: the views and the start where the backbone is not trained.
  """

  before: tuple[Stage, ...]
  inputs: dict[str, str]


def frozen_stages(config: ConfigDict, *sections: str) -> Frozen:
  """Stages of `Frozen`, after the features of round 1 and the baselines on them.

  Args:
    config: ``views``, where there is such a section, and ``trained`` of the sections are read.
    *sections: Of the method's trainings.

  Raises:
    InputError: If the backbone stays as it is in one training and not in another, or in trainings
      of several rounds, or there are fewer than two views to train on and to compare on.
  """
  trained = {section: config[section].trained for section in sections}
  stays = set(trained.values()) == {"head"}
  require(
    stays or "head" not in trained.values(),
    f"{' and '.join(f'{name}.trained is {value!r}' for name, value in trained.items())}; a network "
    "stays as it is ('head') in all trainings or in none.",
  )
  if "views" not in config:
    return Frozen((), {})
  number = config.views.number
  require(
    not stays or number >= 2,
    f"views.number is {number}, but with trained='head' one view is trained on and one kept for "
    "the comparison of codes; give 2 or more.",
  )
  start = f"start_{config.bits}bits"
  before = [
    views.STAGE.named("views", teacher="teacher", features="features_1"),
    partitions.STAGE.named("partitions", views="views", features="features_1"),
  ]
  if stays:
    before += [
      discriminant.STAGE.named("discriminant", partitions="partitions", features="features_1"),
      start_lib.STAGE.named(start, discriminant="discriminant", features="features_1"),
    ]
  return Frozen(tuple(before), {"views": "views", "start": start} if stays else {})


def stages_after_training(
  config: ConfigDict, network: str, frozen: Frozen
) -> tuple[tuple[Stage, ...], str]:
  """Stages that make the codes and compare them with ITQ's, and which holds the network.

  Args:
    config: Of the method.
    network: The stage of the trained network.
    frozen: From `frozen_stages`.

  Returns:
    The stages, the last one ``encode_*bits``'s or the guard's, and the stage whose network is
    published.
  """
  encode, name = encode_stage(config, network), f"guard_{config.bits}bits"
  if not frozen.before:
    return (encode,), network
  common = {"partitions": "partitions", "baselines": baselines_stage(config).name}
  if not frozen.inputs:
    return (encode, guard.STAGE.named(name, encoded=encode.name, **common)), network
  start = frozen.inputs["start"]
  roles = {"network": network, "start": start, "features": "features_1"}
  roles |= {"discriminant": "discriminant"}
  return (guard.STAGE.named(name, **roles, **common),), name


def guarded_codes_of(
  config: ConfigDict, title: str, frozen: Frozen
) -> tuple[tuple[CodeSource, ...], tuple[Drawing, ...]]:
  """The method's own row, that of its start where it has one, and the guard's verdict.

  Args:
    config: Of the method.
    title: Of the method.
    frozen: From `frozen_stages`.
  """
  if not frozen.before:
    return (codes_of(config, title),), ()
  name = f"guard_{config.bits}bits"
  stages = (name, "discriminant") if frozen.inputs else (name,)
  drawing = Drawing(stages, functools.partial(guard_section, title, stages))
  if not frozen.inputs:
    return (codes_of(config, title),), (drawing,)
  own = CodeSource(title, {"image": (name, "codes")})
  start = CodeSource("Discriminant ITQ", {"image": (frozen.inputs["start"], "codes")})
  return (own, start), (drawing,)


def guard_section(
  title: str,
  stages: tuple[str, ...],
  dataset: Dataset,
  config: ConfigDict,
  outputs: Mapping[str, Any],
  workdir: pathlib.Path,
) -> list[Section]:
  """Prints and stores what `udh_jax.stages.guard` found; returns its section of the report.

  Args:
    title: Of the method.
    stages: The guard's, and that of the start's directions where there are any.
    dataset: Images.
    config: ``bits`` is read.
    outputs: By stage.
    workdir: Where ``guard_*bits.json`` goes.
  """
  guarded = outputs[stages[0]]
  found, chosen = np.asarray(guarded["agreement"]), int(guarded["chosen"])
  rows = [title, "ITQ"]
  if len(stages) > 1:
    candidate = discriminant.words(int(outputs[stages[1]]["chosen"]), len(dataset.splits.train))
    rows = [f"{title}, trained", f"its start, discriminant ITQ ({candidate})", "ITQ"]
  counts = [k for k, _ in partitions.sizes(len(dataset.splits.train), partitions.HELD_TO)]
  table = Table(
    ["codes", *(f"{k} clusters" for k in counts)],
    [[row, *(f"{v:.3f}" for v in values)] for row, values in zip(rows, found, strict=True)],
  )
  held = len(np.setdiff1d(dataset.splits.database, dataset.splits.train))
  where = (
    f"of {min(held, guard.MOST_QUERIES):,} images that were not trained on"
    if held
    else "within the training images, as none was held out (data.held_out)"
  )
  words = [
    f"Without labels: mAP of the codes {where}, where an image counts as relevant that lies in "
    "the same cluster of another view.",
    f"Kept: {rows[chosen]}. It agrees better than ITQ at {(found[chosen] > found[-1]).sum()} of "
    f"{found.shape[1]} numbers of clusters ({', '.join(map(str, counts))}).",
  ]
  if chosen == len(found) - 1:
    kept = (
      "the published network has ITQ's layer"
      if len(found) > 2
      else ("use configs/baseline.py:itq for this collection")
    )
    words.append(f"The learned codes do not beat ITQ on the untouched network: {kept}.")
  for line in words[1:]:
    say(f"[guard] {line}")
  agreement = {
    row: dict(zip(map(str, counts), map(float, values), strict=True))
    for row, values in zip(rows, found, strict=True)
  }
  record = {"agreement": agreement, "kept": rows[chosen]}
  write_json(workdir / f"guard_{config.bits}bits.json", record)
  return [Section("Are the learned codes better?", words, [table])]


def encode_stage(config: ConfigDict, network: str) -> Stage:
  """Codes of images by the hash network of the stage ``network``."""
  return encode.IMAGES.named(f"encode_{config.bits}bits", network=network)


def encode_pairs_stage(config: ConfigDict, network: str, **features: str) -> Stage:
  """Codes of pairs by the networks of the stage ``network``, see `cached_features`."""
  return encode.PAIRS.named(f"encode_{config.bits}bits", network=network, **features)


def baselines_stage(
  config: ConfigDict, name: str = "baselines", source: str = "features_1"
) -> Stage:
  """Codes of the baselines, made of the features of the stage ``source``."""
  return baselines.STAGE.named(f"{name}_{config.bits}bits", features=source)


def backbone_stages(config: ConfigDict) -> tuple[tuple[Stage, ...], dict[str, str]]:
  """What image networks on pictures begin with, and its stages by role; nothing for features."""
  if not config.teacher.weights:
    return (), {}
  roles = {"backbone": "teacher", "features": "features_1"}
  return (teacher_stage(config), features_stage(config, 1, "teacher")), roles


def cached_features(config: ConfigDict, section: str, roles: dict[str, str]) -> dict[str, str]:
  """The stage of features, by role, where networks are trained on these and not on pictures.

  Args:
    config: ``trained`` of the section decides: "head" leaves the backbone as it is.
    section: Of the networks' training.
    roles: From `backbone_stages`.
  """
  if config[section].trained != "head" or "features" not in roles:
    return {}
  require(
    len(config.features.image_sizes) == 1,
    f"features.image_sizes is {tuple(config.features.image_sizes)}, but {section}.trained is "
    "'head': features are made once, at one side; give one.",
  )
  return {"features": roles["features"]}


def codes_of(config: ConfigDict, title: str) -> CodeSource:
  """Codes of images by the method itself."""
  return CodeSource(title, {"image": (f"encode_{config.bits}bits", "codes")})


def pair_codes_of(config: ConfigDict, title: str) -> CodeSource:
  """Codes of pairs by the method itself."""
  stage = f"encode_{config.bits}bits"
  return CodeSource(title, {side: (stage, f"{side}_codes") for side in ("image", "text")})


def pair_network_plan(config: ConfigDict, title: str, section: str, training: Stage) -> Plan:
  """A method that trains both networks of pairs in one stage: its stages and its row.

  Args:
    config: Of pairs, see `udh_jax.methods.defaults.on_pairs`.
    title: Of the row.
    section: Of the training's fields.
    training: The stage, whose name the network has with the number of bits.
  """
  before, roles = backbone_stages(config)
  features = cached_features(config, section, roles)
  used = {role: name for role, name in roles.items() if role == "backbone"} | features
  network = f"{training.name}_{config.bits}bits"
  stages = (
    *before[: len(used)],  # features are read only where the backbone stays as it is
    training.named(network, **used),
    encode_pairs_stage(config, network, **features),
  )
  return Plan(title, stages, network, (pair_codes_of(config, title),))


def baselines_of(
  config: ConfigDict, name: str = "baselines", words: str = ""
) -> tuple[CodeSource, ...]:
  """Codes of the baselines, the strongest first.

  Args:
    config: ``bits`` is read.
    name: As of `baselines_stage`.
    words: What is added to their titles.
  """
  stage = f"{name}_{config.bits}bits"
  return tuple(
    CodeSource(title + words, {"image": (stage, key)}) for key, title in BASELINE_TITLES.items()
  )


def enough_are_confident(cluster: ConfigDict) -> Callable[[Dataset], None]:
  """A check that as many training images as clusters are within the threshold."""

  def check(dataset):
    _require_images(dataset, num_clusters=cluster.num_clusters)
    available = len(dataset.splits.train)
    confident_count(available, cluster.threshold_quantile, cluster.num_clusters)

  return check


def _require_images(dataset: Dataset, *, num_clusters: int) -> None:
  available = len(dataset.splits.train)
  require(
    available >= num_clusters,
    f"cluster.num_clusters is {num_clusters}, but there are {available} training images; lower it "
    "or give more images.",
  )


def sizes_can_be_met(cluster: ConfigDict) -> Callable[[Dataset], None]:
  """A check that the training images can be shared out among clusters of the sizes asked for."""

  def check(dataset):
    _require_images(dataset, num_clusters=cluster.num_clusters)
    rows = len(dataset.splits.train)
    require_sizes(
      "cluster", cluster.num_clusters, cluster.min_size or None, cluster.max_size or None, rows
    )

  return check


def require_enough_features(config: ConfigDict, otherwise: str) -> None:
  """Refuses codes that are longer than a network has features, where ITQ or PCA makes them.

  Args:
    config: ``bits`` and ``teacher.backbone`` are read.
    otherwise: The setting that does without.

  Raises:
    InputError: If so.
  """
  width = create_backbone(config.teacher.backbone).feature_dim
  require(
    config.bits <= width,
    f"bits is {config.bits}, but {config.teacher.backbone} has only {width} features, and ITQ and "
    f"PCA make at most one bit of each; ask for fewer bits, or set {otherwise}.",
  )
