"""A network that stays as it is, or was adapted once: its features, and how codes are guarded."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.files import write_json
from udh_jax.methods import defaults
from udh_jax.methods.steps import (
  baselines_of,
  baselines_stage,
  clustered_stages,
  codes_of,
  encode_stage,
  features_stage,
  require_enough_features,
  require_one_side,
)
from udh_jax.report.page import Section, Table
from udh_jax.retrieval.agreement import DEFINITION
from udh_jax.runtime.log import say
from udh_jax.runtime.plan import CodeSource, Drawing
from udh_jax.runtime.stage import Stage
from udh_jax.stages import adapt, discriminant, features, guard, partitions, start, views


class Frozen(NamedTuple):
  """What a method does on a network that stays as it is, and how it guards its codes.

  Attributes:
    before: Stages that make views, clusterings and the start, and the adapted network before that;
      none without a section ``views``.
    start: The stage that training starts at; none where the backbone is trained.
    rounds: How often features are read and clustered: twice where the network may be adapted.
  """

  before: tuple[Stage, ...] = ()
  start: str = ""
  rounds: int = 1

  @property
  def stays(self) -> bool:
    """Whether the backbone stays as it is while codes are learned."""
    return bool(self.start)

  @property
  def may_adapt(self) -> bool:
    """Whether there is a stage that may adapt the network before."""
    return self.rounds > 1

  @property
  def teacher(self) -> str:
    """The stage of the network that codes are learned on."""
    return "adapt" if self.may_adapt else "teacher"

  @property
  def inputs(self) -> dict[str, str]:
    """Of trainings, by role: the views and the start where the backbone is not trained."""
    return {"views": self.of("views"), "start": self.start} if self.stays else {}

  def of(self, name: str) -> str:
    """The name of a stage on that network."""
    return f"adapted_{name}" if self.may_adapt else name

  @property
  def features(self) -> str:
    """The stage of that network's features."""
    return f"features_{self.rounds}"

  @property
  def clustering(self) -> str:
    """The stage of the clusters of these."""
    return f"cluster_{self.rounds}"

  def clusterings(self, rounds: int) -> tuple[str, ...]:
    """The stages of clusters that codes are learned from, of a method of so many rounds."""
    if self.stays:
      return (self.clustering,)
    return tuple(f"cluster_{number}" for number in range(1, rounds + 1))


def frozen_stages(
  config: ConfigDict, *sections: str, clustering: Stage, reading: Stage = features.STAGE
) -> Frozen:
  """Stages of `Frozen`, after features and clusters of round 1 and the baselines on these features.

  Args:
    config: ``views``, where there is such a section, ``adapt`` and ``trained`` of the sections are
      read.
    *sections: Of the method's trainings.
    clustering: What looks for the method's clusters.
    reading: What reads its images, see `features_stage`.

  Raises:
    InputError: If the backbone stays as it is in one training and not in another, over several
      rounds or several sides, there are fewer than two views to train on and to compare on, codes
      are longer than ITQ's, which they are compared with, or a network is to be adapted that is
      trained anyway.
  """
  if "views" not in config:
    return Frozen()
  require_enough_features(config)
  trained = {section: config[section].trained for section in sections}
  stays = set(trained.values()) == {"head"}
  require(
    stays or "head" not in trained.values(),
    f"{' and '.join(f'{name}.trained is {value!r}' for name, value in trained.items())}; a network "
    "stays as it is ('head') in all trainings or in none.",
  )
  require(
    not stays or config.rounds == 1,
    f"rounds is {config.rounds}, but {sections[0]}.trained is 'head': a network that stays as it "
    "is gives the same features in every round; set rounds to 1.",
  )
  if stays:
    require_one_side(config, f"{sections[0]}.trained is 'head'")
    require_views_augmented(config, *sections)
  number = config.views.number
  require(
    not stays or number >= 2,
    f"views.number is {number}, but with trained='head' one view is trained on and one kept for "
    "the comparison of codes; give 2 or more.",
  )
  adapts = "adapt" in config and config.adapt.steps > 0  # runs of earlier versions have none
  require(
    stays or not adapts,
    lambda: (
      f"adapt.steps is {config.adapt.steps}, but {sections[0]}.trained is "
      f"{trained[sections[0]]!r}: a network that is trained with the codes is not adapted before; "
      "set adapt.steps to 0."
    ),
  )
  require(
    not adapts or config.adapt.trained != "head",
    "adapt.trained is 'head', which leaves the network as it is; give 'last' or 'all', or set "
    "adapt.steps to 0.",
  )
  before = [
    views.STAGE.named("views", teacher="teacher", features="features_1"),
    partitions.STAGE.named("partitions", views="views", features="features_1"),
  ]
  if not stays:
    return Frozen(tuple(before))
  before.append(
    discriminant.STAGE.named("discriminant", partitions="partitions", features="features_1")
  )
  frozen = Frozen((), f"start_{config.bits}bits", rounds=2 if adapts else 1)
  if adapts:
    before += _on_adapted_network(config, frozen, clustering, reading)
  begin = start.STAGE.named(
    frozen.start,
    discriminant=frozen.of("discriminant"),
    baselines=baselines_stage(config).name,
    partitions=frozen.of("partitions"),
    features=frozen.features,
  )
  return frozen._replace(before=(*before, begin))


def require_views_augmented(config: ConfigDict, *sections: str) -> None:
  """Refuses an augmentation that is set where none is made: in a training on views made before.

  Args:
    config: ``views`` and the sections are read.
    *sections: Of trainings on a network that stays as it is.

  Raises:
    InputError: If one differs from the views' and from the default.
  """
  read = config.views.augment.to_dict()
  for section in sections:
    given = config[section].augment.to_dict()
    require(
      given in (read, defaults.augmentation()),
      f"{section}.augment is changed, but {section}.trained is 'head': such a network reads views "
      "that are made once; set views.augment to the same.",
    )


def _on_adapted_network(
  config: ConfigDict, frozen: Frozen, clustering: Stage, reading: Stage
) -> list[Stage]:
  """The network that is adapted, and all that was made on the one it was, made again on it.

  Codes go on to be compared by the clusters of the untouched network's view.
  """
  network, features = frozen.teacher, frozen.features
  before = (stage.name for stage in clustered_stages(config, 1, clustering))
  again = {
    "features_1": features_stage(config, frozen.rounds, network, reading),
    **dict(zip(before, clustered_stages(config, frozen.rounds, clustering), strict=True)),
    "views": views.STAGE.named(frozen.of("views"), teacher=network, features=features),
    "partitions": partitions.STAGE.named(frozen.of("partitions"), views="views", features=features),
    "discriminant": discriminant.STAGE.named(
      frozen.of("discriminant"), partitions=frozen.of("partitions"), features=features
    ),
  }
  roles = {"teacher": "teacher", "clustering": "cluster_1", "views": "views"}
  baselines = baselines_stage(config, frozen.of("baselines"), features)
  return [
    adapt.STAGE.named(network, **roles),
    *(adapt.on_adapted(stage, network, before) for before, stage in again.items()),
    adapt.on_adapted(baselines, network),
  ]


def stages_after_training(
  config: ConfigDict, network: str, frozen: Frozen, **read: str
) -> tuple[tuple[Stage, ...], str]:
  """Stages that make the codes and compare them with ITQ's, and which holds the network.

  Args:
    config: Of the method.
    network: The stage of the trained network.
    frozen: From `frozen_stages`.
    **read: Stages of features that codes are made from, see `encode_stage`.

  Returns:
    The stages, the last one ``encode_*bits``'s or the guard's, and the stage whose network is
    published.
  """
  encode, name = encode_stage(config, network, **read), f"guard_{config.bits}bits"
  if not frozen.before:
    return (encode,), network
  common = {"partitions": "partitions", "baselines": baselines_stage(config).name}
  if not frozen.stays:
    return (encode, guard.STAGE.named(name, encoded=encode.name, **common)), network
  roles = {"network": network, "start": frozen.start, "features": frozen.features}
  roles |= {"discriminant": "discriminant"}
  if frozen.may_adapt:
    roles |= {"adapted": frozen.teacher, "teacher": "teacher", "untouched": "features_1"}
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
  stages: tuple[str, ...] = (name,)
  if frozen.stays:
    stages += (frozen.of("discriminant"), frozen.start)
  if frozen.may_adapt:
    stages += (frozen.teacher,)
  drawing = Drawing(stages, functools.partial(guard_section, title, stages))
  if not frozen.stays:
    return (codes_of(config, title),), (drawing,)
  own = CodeSource(title, {"image": (name, "codes")})
  begin = CodeSource("Discriminant ITQ", {"image": (frozen.start, "codes")})
  rows = baselines_of(config, frozen.of("baselines"), ", adapted network")
  return (own, begin, *(rows if frozen.may_adapt else ())), (drawing,)


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
    stages: The guard's, and where there are any that of the start's directions, the start's and the
      adapted network's.
    dataset: Images.
    config: ``bits`` is read.
    outputs: By stage.
    workdir: Where ``guard_*bits.json`` goes.
  """
  guarded = outputs[stages[0]]
  found, chosen = np.asarray(guarded["agreement"]), int(guarded["chosen"])
  rows = [title, "ITQ"]
  if len(stages) > 1:
    directions, flatness = (int(outputs[stage]["chosen"]) for stage in stages[1:3])
    settings = discriminant.words(directions, len(dataset.splits.train))
    settings += f", flatness {start.FLATNESSES[flatness]:g}"
    rows = [f"{title}, trained", f"its start, discriminant ITQ ({settings})", "ITQ"]
  counts = [k for k, _ in partitions.sizes(len(dataset.splits.train), partitions.HELD_TO)]
  table = Table(
    ["codes", *(f"{k} clusters" for k in counts)],
    [[row, *(f"{v:.3f}" for v in values)] for row, values in zip(rows, found, strict=True)],
  )
  held = len(guard.held_out_rows(dataset.splits))
  where = (
    f"of {min(held, guard.MOST_QUERIES):,} images that were not trained on"
    if held
    else "of training images among the others, as none was held out (data.held_out)"
  )
  # Of ITQ's own row the ratios would all be 1: then those of the trained codes are told.
  learned = chosen if chosen < len(found) - 1 else 0
  ratios = guard.over_itq(found)[learned]
  whose = "Its agreement" if learned == chosen else f"Agreement of {rows[learned]}"
  rule = (
    "Other codes replace the learned ones only if they agree better at every number of clusters."
  )
  if len(stages) > 1:
    lengths = f"{', '.join(map(str, discriminant.LENGTHS[:-1]))} and {discriminant.LENGTHS[-1]}"
    itq = f"the start agrees less than ITQ, in the mean over {lengths} bits"
    if len(stages) > 3 and adapt.was_adapted(outputs[stages[3]]):
      itq = f"they agree {guard.LOST:.0%} less than ITQ's (clusters are the published network's)"
    rule = (
      "The start replaces the trained codes only if it agrees better at every number of clusters; "
      f"ITQ's codes replace both only if {itq}, at every number of clusters."
    )
  at = ", ".join(f"{ratio:.2f} at {k}" for ratio, k in zip(ratios, counts, strict=True))
  words = [
    f"Without labels: {DEFINITION} of the codes {where}, where an image counts as relevant that "
    "lies in the same cluster of another view.",
    f"Kept: {rows[chosen]}. {whose} with clusters, relative to ITQ's: {at} clusters. {rule}",
  ]
  if len(stages) > 3:
    alike = float(outputs[stages[3]]["invariance"])
    words.insert(1, adapt.in_words(alike, config.adapt.invariance))
  if chosen == len(found) - 1:
    advice = "use configs/baseline.py:itq for this collection"
    advice = "the published network has ITQ's layer" if len(stages) > 1 else advice
    words.append(
      f"The learned codes are not expected to beat ITQ on the untouched network: {advice}."
    )
  for line in words[1:]:
    say(f"[guard] {line}")
  record = {
    "definition": words[0],
    "clusters": counts,
    "agreement": {row: list(map(float, values)) for row, values in zip(rows, found, strict=True)},
    "kept": rows[chosen],
  }
  write_json(workdir / f"guard_{config.bits}bits.json", record)
  return [Section("Are the learned codes better?", words, [table])]
