"""Pseudo labels in, a better teacher out."""

import jax.numpy as jnp
import numpy as np

from udh_jax.data.augmentation import augment
from udh_jax.errors import require
from udh_jax.losses.classification import smoothed_cross_entropy
from udh_jax.models.heads import Classifier
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.network import (
  backbone_of,
  backbone_variables,
  facts,
  new_network,
  preprocess,
)
from udh_jax.stages.training import train

FIELDS = ("finetune", "teacher.image_size", "cluster.num_clusters", "seed", "dtype")


def trusted_rows(rows, labels, margin, fraction: float) -> np.ndarray:
  """The rows of each cluster whose margin is largest.

  Args:
    rows: Training rows. Array of shape ``[n]``, int.
    labels: Cluster of every image. Array of shape ``[N]``, int.
    margin: See `udh_jax.stages.cluster.margins`. Array of shape ``[N]``.
    fraction: Part of each cluster to keep, in (0, 1].

  Returns:
    Those of ``rows``, in their order; at least one of each cluster.

  Raises:
    InputError: If ``fraction`` is outside (0, 1].

  References:
    Our own handling of label noise: the paper's abstract only says that noise is reduced.
  """
  require(0 < fraction <= 1, f"finetune.trusted_fraction is {fraction}; it has to be in (0, 1].")
  order = rows[np.lexsort((-margin[rows], labels[rows]))]  # by cluster, largest margin first
  sizes = np.bincount(labels[rows])
  rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
  kept = rank < np.repeat(np.ceil(sizes * fraction), sizes)
  return np.sort(order[kept])


def finetune(context: Context, config, inputs, *, seed_offset: int) -> Work:
  """Trains the teacher with a new K-way head on the hard pseudo labels, images augmented.

  It sees the images whose labels can be trusted most, see `trusted_rows`.

  Outputs: a network whose ``variables`` are those of `Classifier`.

  References:
    UDH-ECC, stage 1: "fine-tuned the teacher network"; label smoothing and the choice of images
    are our own.
  """
  teacher, settings = inputs["teacher"], config.finetune
  size, seed = config.teacher.image_size, config.seed + seed_offset
  module = Classifier(backbone_of(teacher, config.dtype), config.cluster.num_clusters)
  network = new_network(context, module, facts(teacher), seed=seed, size=size)
  network["variables"]["params"]["backbone"] = backbone_variables(teacher)["params"]
  fixed = {"batch_stats": {"backbone": backbone_variables(teacher).get("batch_stats", {})}}
  prepare = preprocess(teacher)
  clustering, num_images = inputs["clustering"], len(context.dataset.images)
  rows = trusted_rows(
    context.dataset.splits.train,
    *(mesh_lib.to_host(clustering[name], num_images) for name in ("labels", "margin")),
    settings.trusted_fraction,
  )

  def loss(parameters, constants, batch, key):
    views = prepare(augment(key, batch["image"], batch["index"], size=size, **settings.augment))
    logits, _ = module.apply({"params": parameters, **constants["fixed"]}, views)
    labels = constants["labels"][batch["index"]]  # [b]
    value = smoothed_cross_entropy(
      logits, labels, smoothing=settings.label_smoothing, weights=batch["weight"]
    )
    right = (logits.argmax(axis=1) == labels) * batch["weight"]
    return value, {"agreement": right.sum() / jnp.maximum(batch["weight"].sum(), 1.0)}

  return train(
    context,
    loss,
    network["variables"]["params"],
    {"fixed": fixed, "labels": clustering["labels"]},
    rows=rows,
    settings=settings,
    seed=seed,
    finish=lambda parameters: {
      "variables": {"params": parameters, **fixed},
      "about": network["about"],
    },
  )
