"""Pseudo labels in, a better teacher out."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.losses.classification import smoothed_cross_entropy
from udh_jax.models.heads import Classifier
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.network import backbone_of, facts, new_network
from udh_jax.stages.pseudo_labels import confident_labels
from udh_jax.stages.training import forward_on_views, made_views, train


def classifier(
  context: Context,
  config: ConfigDict,
  inputs: Inputs,
  *,
  settings: ConfigDict,
  seed: int,
  finish: Callable[[dict[str, Any]], dict[str, Any]] = lambda trained: trained,
) -> Work:
  """Work that trains a network and new K-way heads, one a clustering, on confident pseudo labels.

  Args:
    context: Devices and images.
    config: ``teacher.image_size``, ``cluster`` and ``dtype`` are read.
    inputs: ``teacher``, ``clustering``, and ``views`` where the backbone stays as it is.
    settings: Of the training, with ``label_smoothing``.
    seed: Decides heads, batches and views.
    finish: From the trained network, a `Classifier`, to the stage's outputs.
  """
  teacher, size = inputs["teacher"], config.teacher.image_size
  module = Classifier(backbone_of(teacher, config.dtype), clusterings.num_logits(config))
  network = new_network(
    context, module, facts(teacher), (1, size, size, 3), seed=seed, teacher=teacher
  )
  forward = forward_on_views(network, settings, size)

  def loss(parameters, constants, batch, key):
    logits, _ = forward(parameters, constants, batch, key)
    labels = constants["labels"][batch["index"]]  # [b, H]
    logits, labels, weights = clusterings.confident_rows(logits, labels, batch["weight"], config)
    value = smoothed_cross_entropy(
      logits, labels, smoothing=settings.label_smoothing, weights=weights
    )
    right = (logits.argmax(axis=1) == labels) * weights
    return value, {"agreement": right.sum() / jnp.maximum(weights.sum(), 1.0)}

  constants = {"labels": confident_labels(inputs["clustering"]), **made_views(inputs)}
  return train(context, loss, network, constants, settings=settings, seed=seed, finish=finish)


def finetune(context: Context, config: ConfigDict, inputs: Inputs, *, seed_offset: int) -> Work:
  """Trains the teacher on its pseudo labels, see `classifier`.

  Outputs: a network whose ``variables`` are those of `Classifier`.

  References:
    UDH-ECC, stage 1: "fine-tuned the teacher network"; augmentation and label smoothing are our
    own.
  """
  seed = config.seed + seed_offset
  return classifier(context, config, inputs, settings=config.finetune, seed=seed)


STAGE = Stage(
  "finetune", finetune, ("finetune", "teacher.image_size", *clusterings.FIELDS, "seed", "dtype")
)
