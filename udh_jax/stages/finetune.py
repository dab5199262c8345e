"""Pseudo labels in, a better teacher out."""

import jax.numpy as jnp

from udh_jax.data.augmentation import augment
from udh_jax.losses.classification import smoothed_cross_entropy
from udh_jax.models.heads import Classifier
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


def finetune(context: Context, config, inputs, *, seed_offset: int) -> Work:
  """Trains the teacher with a new K-way head on the hard pseudo labels, images augmented.

  Outputs: a network whose ``variables`` are those of `Classifier`.

  References:
    UDH-ECC, stage 1: "fine-tuned the teacher network"; label smoothing is our own choice.
  """
  teacher, settings = inputs["teacher"], config.finetune
  size, seed = config.teacher.image_size, config.seed + seed_offset
  module = Classifier(backbone_of(teacher, config.dtype), config.cluster.num_clusters)
  network = new_network(context, module, facts(teacher), seed=seed, size=size)
  network["variables"]["params"]["backbone"] = backbone_variables(teacher)["params"]
  fixed = {"batch_stats": {"backbone": backbone_variables(teacher).get("batch_stats", {})}}
  prepare = preprocess(teacher)

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
    {"fixed": fixed, "labels": inputs["clustering"]["labels"]},
    settings=settings,
    seed=seed,
    finish=lambda parameters: {
      "variables": {"params": parameters, **fixed},
      "about": network["about"],
    },
  )
