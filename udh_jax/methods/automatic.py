"""Fields that are "auto": sizes, training lengths and clusters from the pictures themselves.

No label is read. All rules are our own; docs/results.md has the tables they come from.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict, FieldReference

from udh_jax.configuration import flatten
from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib

AUTO = "auto"
CLUSTER_FIELDS = ("cluster.num_clusters", "cluster.min_size", "cluster.max_size")
SECTIONS = ("finetune", "distill", "contrast", "ssdh", "psch", "supervised")

OWN_SIDE = 224  # what published networks were trained at
ENLARGED = 5  # pictures are shown at most so many times their own side: more shows nothing new
TRAINING_SHARE = 0.75  # side of random crops to side of whole pictures, see `reading_size`
MULTIPLE = 32  # sides are multiples of the networks' stride

PASSES, FEWEST_STEPS, MOST_STEPS = 8, 60, 400
SMALL_COLLECTION = 4000  # fewer pictures train the last blocks of a published network only

CANDIDATES = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30)
SAMPLE = 2000  # pictures that the number of clusters is chosen on
CLEAR_SILHOUETTE = 0.2
PER_CLUSTER, FEWEST_CLUSTERS, MOST_CLUSTERS = 50, 10, 30
UNEQUAL = 3.0  # largest over smallest cluster, from which on equal sizes would do harm


def auto() -> FieldReference:
  """A field that is chosen by `resolve`, unless it is set to a value."""
  return FieldReference(AUTO, field_type=object)


def on_any_pictures(config: ConfigDict) -> None:
  """Leaves to `resolve` what depends on the collection, and scores all of the database.

  Args:
    config: Of a method on images.
  """
  config.score.at = 0
  fields = ["features.image_sizes", "teacher.image_size", "student.image_size", *CLUSTER_FIELDS]
  fields += [f"{section}.{name}" for section in SECTIONS for name in ("steps", "trained")]
  for field in fields:
    section, _, name = field.partition(".")
    if section in config and name in config[section]:
      del config[section][name]
      config[section][name] = auto()


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


def sides(collection: Collection) -> tuple[int, int]:
  """At which side whole pictures are read and at which random crops are trained on.

  Args:
    collection: Of pictures for a published network.

  Returns:
    Both in pixels. 224 and 160 for photographs, 160 and 128 for CIFAR-10's 32 pixels.

  References:
    Touvron et al., NeurIPS 2019: networks read better at a larger side than that of their crops.
  """

  def rounded(side):
    return max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE)

  reading = rounded(min(OWN_SIDE, ENLARGED * collection.side))
  return reading, rounded(TRAINING_SHARE * reading)


def steps(num_train: int, batch_size: int) -> int:
  """How many training steps: some passes over the pictures, within bounds."""
  return int(np.clip(math.ceil(PASSES * num_train / batch_size), FEWEST_STEPS, MOST_STEPS))


def resolve(config: ConfigDict, collection: Collection) -> tuple[ConfigDict, dict[str, Any]]:
  """Gives all fields that are "auto" their values, but for those of `CLUSTER_FIELDS`.

  Args:
    config: Whole.
    collection: What the pictures are.

  Returns:
    The configuration without "auto", and the values chosen, by dotted field.
  """
  reading, training = sides(collection)
  trained = "last" if collection.num_train < SMALL_COLLECTION else "all"
  values: dict[str, Any] = {
    "features.image_sizes": (reading,),
    "teacher.image_size": training,
    "student.image_size": training,
  }
  for section in SECTIONS:
    if section in config:
      values[f"{section}.steps"] = steps(collection.num_train, config[section].batch_size)
      values[f"{section}.trained"] = trained
  return with_values(config, values)


def is_open(config: ConfigDict) -> bool:
  """Whether the clusters have still to be chosen, which takes features."""
  return any(flatten(config).get(field) == AUTO for field in CLUSTER_FIELDS)


def provisional(config: ConfigDict) -> ConfigDict:
  """The configuration with values of a usual collection, to check all else by."""
  config, _ = resolve(config, Collection(1000, OWN_SIDE))
  return with_values(config, {"cluster.num_clusters": 1, **_SIZES_EQUAL})[0]


_SIZES_EQUAL = {"cluster.min_size": 0, "cluster.max_size": 0}


def with_values(config: ConfigDict, values: dict[str, Any]) -> tuple[ConfigDict, dict[str, Any]]:
  """Sets those of the fields that are "auto".

  Raises:
    InputError: If a field is "auto" that is none of them, and no cluster's.
  """
  config = config.copy_and_resolve_references()
  given = flatten(config)
  chosen = {field: value for field, value in values.items() if given.get(field) == AUTO}
  rest = [
    field
    for field, value in given.items()
    if value == AUTO and field not in chosen and field not in CLUSTER_FIELDS
  ]
  require(not rest, lambda: f"{rest[0]} is 'auto', but nothing chooses it; give it a value.")
  with config.ignore_type():
    config.update_from_flattened_dict(chosen)
  return config, chosen


def choose_clusters(features: np.ndarray, *, seed: int) -> tuple[int, int, int]:
  """How many clusters, and how unequal they may be, from features without labels.

  Where the mean silhouette of k-means has a clear peak, the collection has as many groups; else it
  is divided finely, one cluster for every 50 pictures, 10 to 30: pseudo labels that are finer than
  the classes cost little, coarser ones much. Where the k-means clusters of a collection are very
  unequal, sizes need only be between half of the smallest and 5/4 of the largest.

  Args:
    features: Of unit length. Array of shape ``[n, d]``.
    seed: Decides the sample and the starts.

  Returns:
    Number of clusters; least and greatest size, 0 and 0 for equal sizes.

  References:
    Rousseeuw, Silhouettes, 1987. The rule is our own.
  """
  from sklearn.cluster import KMeans
  from sklearn.metrics import silhouette_score
  from threadpoolctl import threadpool_limits

  rng = np.random.default_rng(seed)
  count = len(features)
  sample = np.asarray(features[np.sort(rng.permutation(count)[:SAMPLE])], np.float64)
  distinct = len(np.unique(sample, axis=0))
  width = min(64, *sample.shape)
  centred = sample - sample.mean(axis=0)
  _, _, directions = np.linalg.svd(centred, full_matrices=False)
  reduced = centred @ directions[:width].T
  best = (-1.0, 1, np.zeros(len(sample), int))
  with threadpool_limits(1):  # so small, more threads only wait for each other
    for number in (c for c in CANDIDATES if c < distinct):
      labels = KMeans(number, n_init=3, random_state=seed).fit_predict(reduced)
      score = float(silhouette_score(reduced, labels))
      if score > best[0]:
        best = (score, number, labels)
  score, number, labels = best
  if score < CLEAR_SILHOUETTE:
    fine = int(np.clip(count // PER_CLUSTER, FEWEST_CLUSTERS, MOST_CLUSTERS))
    return max(1, min(fine, distinct)), 0, 0
  shares = np.bincount(labels) / len(labels)
  if shares.max() < UNEQUAL * shares.min():
    return number, 0, 0
  return (
    number,
    max(1, math.floor(shares.min() * count / 2)),
    min(count, math.ceil(shares.max() * count * 5 / 4)),
  )


def resolve_clusters(
  config: ConfigDict, features: jax.Array, train: np.ndarray
) -> tuple[ConfigDict, dict[str, Any]]:
  """Gives the fields of the clusters that are "auto" their values; every process calls it.

  Args:
    config: Without any other "auto".
    features: Of all pictures, of unit length. Array of shape ``[rows, d]`` over all devices.
    train: Rows to learn from.

  Returns:
    As `resolve`.
  """
  host = mesh_lib.to_host(features)[train]
  choose = functools.partial(choose_clusters, host, seed=config.seed)
  found = mesh_lib.on_main("choose the clusters", choose) or (0, 0, 0)
  agreed = [mesh_lib.agreed(value) for value in found]
  if flatten(config)["cluster.num_clusters"] != AUTO:
    agreed[1:] = 0, 0  # sizes were found for another number
  return with_values(config, dict(zip(CLUSTER_FIELDS, agreed, strict=True)))
