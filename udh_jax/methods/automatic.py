"""Fields that are "auto": sizes, training lengths and clusters from the pictures themselves.

No label is read. All rules are our own; docs/results.md has the tables they come from.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from udh_jax.configuration import flatten
from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.methods import defaults
from udh_jax.models.registry import BACKBONES, create_backbone

AUTO = defaults.AUTO
SECTIONS = ("adapt", "finetune", "distill", "contrast", "bihalf", "ssdh", "psch", "supervised")
GUARDED = ("udh_ecc", "psch")  # methods whose network stays as it is, see `udh_jax.stages.guard`

OWN_SIDE = 224  # what published networks were trained at
ENLARGED = 5  # pictures are shown at most so many times their own side: more shows nothing new
TRAINING_SHARE = 0.75  # side of random crops to side of whole pictures, see `reading_size`
HELD_OUT = 10  # percent
MULTIPLE = 32  # sides are multiples of the networks' stride, or of two patches

# Networks that may be adapted, with the `udh_jax.stages.adapt.invariance` from which on they know
# such pictures: halfway between photographs or products and CIFAR-10's 32 pixels.
INVARIANCE = {"mobilenetv2_100": 0.64, "tf_efficientnet_lite0": 0.73, "efficientnet_lite0": 0.73}
PASSES, FEWEST_STEPS, MOST_STEPS = 8, 60, 400
LABELLED_LONGER = 2  # times as many passes where there are labels, which bear it
SMALL_COLLECTION = 4000  # fewer pictures train the last blocks of a published network only
FEWEST_TO_ADAPT = 2000  # pictures, see `may_adapt`
ADAPTING_LONGER = 1.5  # times as many passes where a network is adapted, see `may_adapt`
FEW_LABELLED = 1000  # fewer pictures with labels train the hash layer alone, more all of it
HEAD_STEPS = 400  # of what is trained on features that were made once: seconds
LABELLED_HEAD_STEPS = 1500  # of the same with labels: the best of DHIH on three collections
MANY_VIEWS, FEW_VIEWS, MANY_PICTURES = 4, 2, 2000  # views of each of fewer, and of more pictures

PER_CLUSTER, FEWEST_CLUSTERS, MOST_CLUSTERS = 20, 10, 30
SPREAD = 4  # clusters have a quarter of their mean size to four times it


def on_any_pictures(config: ConfigDict) -> None:
  """Leaves to `resolve` what depends on the collection, and scores as `defaults.score_folders`.

  Methods that are guarded leave a tenth of the pictures out of the training, see
  `udh_jax.stages.guard`.

  Args:
    config: Of a method on images.
  """
  defaults.score_folders(config)
  fields = [
    "features.image_sizes",
    "teacher.image_size",
    "student.image_size",
    "views.image_size",
    "cluster.num_clusters",
  ]
  if config.method in GUARDED:
    config.data.held_out = HELD_OUT
    config.views = defaults.views()
    config.adapt = defaults.adaptation()
    fields += ["views.number", "adapt.invariance"]
  fields += [f"{section}.{name}" for section in SECTIONS for name in ("steps", "trained")]
  for field in fields:
    section, _, name = field.partition(".")
    if section in config and name in config[section]:
      del config[section][name]
      config[section][name] = defaults.or_auto()


class Collection(NamedTuple):
  """What is known of a data set before a network has seen it.

  Attributes:
    num_train: Pictures to learn from.
    side: Short side of its pictures, in pixels; the median.
  """

  num_train: int
  side: int


def collection_of(dataset: Dataset) -> Collection:
  """The facts of a data set."""
  return Collection(len(dataset.splits.train), dataset.picture_side)


def sides(collection: Collection, backbone: str) -> tuple[int, int]:
  """At which side whole pictures are read and at which random crops are trained on.

  Args:
    collection: Of pictures for a published network.
    backbone: Name of the network; of one that is unknown sides fit any, and plans refuse it.

  Returns:
    Both in pixels. 224 and 160 for photographs, 160 and 128 for CIFAR-10's 32 pixels; multiples of
    28 where patches have 14 pixels.

  References:
    Touvron et al., NeurIPS 2019: networks read better at a larger side than that of their crops.
  """

  patch = create_backbone(backbone).side_multiple if backbone in BACKBONES else 1
  multiple = MULTIPLE if MULTIPLE % patch == 0 else 2 * patch

  def rounded(side):
    return max(multiple, round(side / multiple) * multiple)

  reading = rounded(min(OWN_SIDE, ENLARGED * collection.side))
  return reading, rounded(TRAINING_SHARE * reading)


def steps(num_train: int, batch_size: int, *, longer: float = 1) -> int:
  """How many training steps: some passes over the pictures, within bounds; ``longer`` as many."""
  number = int(np.clip(math.ceil(PASSES * num_train / batch_size), FEWEST_STEPS, MOST_STEPS))
  return math.ceil(number * longer)


def may_adapt(config: ConfigDict, backbone: str, num_train: int) -> bool:
  """Whether a network is adapted to pictures that it does not know, before codes are learned on it.

  Those of `INVARIANCE` are, for which a CPU needs minutes, where the trainings leave the backbone
  as it is and there are `FEWEST_TO_ADAPT`: on 1,000 pictures nothing was gained. What other
  networks gain, and how alike views are to them, was not measured.
  """
  trainings = [section for section in SECTIONS if section != "adapt" and section in config]
  stays = all(config[section].trained in (AUTO, "head") for section in trainings)
  is_published = bool(config.teacher.weights)  # one trained on these pictures knows them
  return stays and is_published and backbone in INVARIANCE and num_train >= FEWEST_TO_ADAPT


def clusters(num_train: int) -> int:
  """How many clusters of equal size: finer than any classes there may be.

  Pseudo labels that divide a class cost little, those that join two cost much; and where classes
  are unequal, a large one is simply divided into more clusters. 500 photographs of five classes
  have .977 mAP@ALL by five clusters, the peak of their silhouette, and .997 by twenty. At most one
  for every two pictures: PSCH learns from four fifths of them.
  """
  wanted = int(np.clip(num_train // PER_CLUSTER, FEWEST_CLUSTERS, MOST_CLUSTERS))
  return max(1, min(wanted, num_train // 2))


def sizes(num_train: int, num_clusters: int) -> tuple[int, int]:
  """Least and most images of a cluster: a quarter of their mean, and four times it.

  Equal sizes are the paper's, and keep clusters from vanishing; wide bounds do that too, and leave
  a cluster the size that the pictures give it where classes are not alike in size.
  """
  mean = num_train / num_clusters
  return max(1, math.floor(mean / SPREAD)), math.ceil(mean * SPREAD)


def resolve(config: ConfigDict, collection: Collection) -> tuple[ConfigDict, dict[str, Any]]:
  """Gives all fields that are "auto" their values.

  Args:
    config: Whole.
    collection: What the pictures are.

  Returns:
    The configuration without "auto", and the values chosen, by dotted field.
  """
  backbone = config.get("teacher", ConfigDict()).get("backbone", "")
  reading, training = sides(collection, backbone)
  guarded = config.method in GUARDED
  values: dict[str, Any] = {
    "features.image_sizes": (reading,),
    "teacher.image_size": training,
    "student.image_size": training,
    "student.backbone": backbone,
    "views.image_size": training,
    "views.number": MANY_VIEWS if collection.num_train < MANY_PICTURES else FEW_VIEWS,
    "cluster.num_clusters": clusters(collection.num_train),
  }
  if "cluster" in config:
    count = config.cluster.num_clusters
    count = values["cluster.num_clusters"] if count == AUTO else count
    if isinstance(count, int) and count > 0:  # of one that is invalid the plan tells
      least, most = sizes(collection.num_train, count)
      values |= {"cluster.min_size": least, "cluster.max_size": most}
  for section in SECTIONS:
    if section in config:
      labelled, adapting = section == "supervised", section == "adapt"
      limit, of_few = (FEW_LABELLED, "head") if labelled else (SMALL_COLLECTION, "last")
      trained = of_few if collection.num_train < limit else "all"
      trained = "head" if guarded and not adapting else trained
      values[f"{section}.trained"] = trained
      given = config[section].get("trained")
      stays = (trained if given == AUTO else given) == "head"
      longer = LABELLED_LONGER if labelled else ADAPTING_LONGER if adapting else 1
      passes = steps(collection.num_train, config[section].batch_size, longer=longer)
      on_features = LABELLED_HEAD_STEPS if labelled else HEAD_STEPS
      values[f"{section}.steps"] = on_features if stays else passes
      if adapting:
        values["adapt.invariance"] = INVARIANCE.get(backbone, 1.0)
        if not may_adapt(config, backbone, collection.num_train):
          values["adapt.steps"] = 0
  config, chosen = with_values(config, values)
  chosen.pop("student.backbone", None)  # the teacher's, whatever the pictures are
  return config, chosen


def provisional(config: ConfigDict) -> ConfigDict:
  """The configuration with values of a usual collection, to check all else by."""
  return resolve(config, Collection(1000, OWN_SIDE))[0]


def with_values(config: ConfigDict, values: dict[str, Any]) -> tuple[ConfigDict, dict[str, Any]]:
  """Sets those of the fields that are "auto".

  Raises:
    InputError: If a field is "auto" that is none of them.
  """
  config = config.copy_and_resolve_references()
  given = flatten(config)
  chosen = {field: value for field, value in values.items() if given.get(field) == AUTO}
  rest = [field for field, value in given.items() if value == AUTO and field not in chosen]
  require(not rest, lambda: f"{rest[0]} is 'auto', but nothing chooses it; give it a value.")
  with config.ignore_type():
    config.update_from_flattened_dict(chosen)
  return config, chosen
