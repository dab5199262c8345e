"""A teacher and labels of the training images in, a hash network out: point-wise losses."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from udh_jax.coding.centres import class_centres
from udh_jax.data.types import Dataset
from udh_jax.errors import require
from udh_jax.losses.registry import POINT_WISE
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.sharding import split_rows
from udh_jax.stages.hash_network import new_hash_network
from udh_jax.stages.network import facts
from udh_jax.stages.training import forward_on_views, train, whole_pictures


def require_training_labels(labels: np.ndarray, class_names: Sequence[str]) -> None:
  """Refuses labels that no classifier can be trained on.

  Args:
    labels: Of the training images alone. int array of shape ``[m]`` or bool ``[m, K]``.
    class_names: Name of each of the K classes.

  Raises:
    InputError: If a class has no image, or a label is not in 0..K-1.
  """
  num_classes = len(class_names)
  if labels.ndim == 1:
    outside = (labels < 0) | (labels >= num_classes)
    require(
      not outside.any(),
      lambda: (
        f"{int(outside.sum())} of {len(labels)} training labels are outside 0..{num_classes - 1} "
        f"(the first is {labels[outside][0]}); renumber the classes from 0 on."
      ),
    )
    counts = np.bincount(labels, minlength=num_classes)
  else:
    require(
      labels.shape[1] == num_classes,
      f"labels have {labels.shape[1]} columns, but there are {num_classes} classes; give one "
      "column a class.",
    )
    counts = labels.sum(axis=0)
  missing = np.flatnonzero(counts == 0)
  require(
    len(missing) == 0,
    lambda: (
      f"{len(missing)} of {num_classes} classes have no training image (the first is "
      f"{class_names[missing[0]]!r}); raise data.num_train, or leave the class out."
    ),
  )


def require_labels_of(dataset: Dataset) -> None:
  """Refuses images without labels.

  Raises:
    InputError: If there are none.
  """
  require(
    dataset.labels is not None,
    f"{dataset.name} has no labels, and a supervised method learns from them; put the images into "
    "one folder a class, or choose an unsupervised method.",
  )


def training_labels(dataset: Dataset) -> np.ndarray:
  """Labels of the training images; all other images have none, -1 or no class at all.

  Args:
    dataset: The images.

  Returns:
    int32 array of shape ``[n]``, or bool ``[n, K]``.

  Raises:
    InputError: If there are no labels, or `require_training_labels` refuses them.
  """
  require_labels_of(dataset)
  labels = dataset.labels
  assert labels is not None
  train = dataset.splits.train
  require_training_labels(labels[train], dataset.class_names)
  known = np.full_like(labels, _none(labels))
  known[train] = labels[train]
  return known


def supervised(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains a hash network on augmented training images and their labels.

  L = classification + lambda_q quantisation, by ``config.loss.name``:

  - the members of `udh_jax.losses.margin`: cross-entropy of their logits from the relaxed codes u,
    and mean (u - sign(u))^2;
  - ``greedyhash``: cross-entropy of the logits W sign(u), straight-through, and mean ||u| - 1|^3;
  - ``orthohash``: cross-entropy of sqrt(c) (cos(u, o_j) - m [j = y]) for fixed codes o_j;
  - ``csq``: binary cross-entropy to the fixed code of the class, and mean (u - sign(u))^2.

  A step reads a batch and its labels: its cost does not depend on the number of images. With
  ``features``, of the same backbone, which stays as it is, no picture is read.

  Outputs: a network whose ``variables`` are those of `HashNetwork`.

  References:
    DHIH: a hash layer on any network and a point-wise loss are the paper's; our own are the
    formula of the loss, quantisation and the start at the teacher. GreedyHash: Su et al., NeurIPS
    2018; OrthoHash: Hoe et al., NeurIPS 2021; CSQ: Yuan et al., CVPR 2020. Competing methods are
    their losses on our hash layer with tanh, see `udh_jax.losses.competing`.
  """
  settings, chosen = config.supervised, config.loss
  require(
    chosen.name in POINT_WISE,
    f"loss.name is {chosen.name!r}; choose one of {', '.join(sorted(POINT_WISE))}.",
  )
  loss_of_rows = POINT_WISE[chosen.name]
  labels = training_labels(context.dataset)
  num_classes = len(context.dataset.class_names)
  teacher = inputs["teacher"]
  learned = not loss_of_rows.fixed_codes
  before = facts(teacher)["labels_used"]
  network = new_hash_network(
    context,
    config,
    teacher,
    num_classes=num_classes if learned else 0,
    labels_used=f"{before}; training labels (the hash network's alone): "
    f"{len(context.dataset.splits.train)} images",
  )
  constants: dict[str, Any] = {"labels": split_rows(context.mesh, labels, fill=_none(labels))}
  if not learned:
    centres = class_centres(num_classes, config.bits, seed=config.seed)
    say(f"[{chosen.name}] centres of {num_classes} classes: {centres.source}")
    fixed = {"codes": centres.codes.astype(np.float32), "tie_break": centres.tie_break}
    constants["classes"] = mesh_lib.replicate(context.mesh, fixed)
  if "features" in inputs:
    constants |= whole_pictures(inputs["features"])
  forward = forward_on_views(network, settings, config.student.image_size)

  def loss(parameters, constants, batch, key):
    relaxed, _ = forward(parameters, constants, batch, key)
    classes = {"codes": parameters["head"]["kernel"].T} if learned else constants["classes"]
    classification, quantisation = loss_of_rows.terms(
      relaxed,
      classes,
      constants["labels"][batch["index"]],
      batch["step"],
      batch["weight"],
      chosen,
    )
    value = classification + chosen.quantisation_weight * quantisation
    return value, {"classification": classification, "quantisation": quantisation}

  return train(context, loss, network, constants, settings=settings, seed=config.seed)


def _none(labels):
  """What stands for no label."""
  return -1 if labels.ndim == 1 else False


# Version 2: the hash layer, which starts at random, learns at the rate of fresh layers.
STAGE = Stage(
  "supervised",
  supervised,
  ("supervised", "loss", "student.image_size", "bits", "seed", "dtype"),
  version=2,
  reads_labels=True,
)
