"""Soft labels in, a hash network out."""

import jax
import jax.numpy as jnp

from udh_jax.data.augmentation import augment
from udh_jax.errors import require
from udh_jax.losses import bit_balance_loss, distillation_loss, quantisation_loss
from udh_jax.models.heads import HashNetwork
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages import clusterings
from udh_jax.stages.baselines import centred_features, fit
from udh_jax.stages.map_rows import train_weights
from udh_jax.stages.network import (
  backbone_of,
  facts,
  new_network,
  preprocess,
  start_at,
)
from udh_jax.stages.training import train_network

FIELDS = (
  "distill",
  "student",
  "bits",
  "soft_labels.temperature",
  *clusterings.FIELDS,
  "seed",
  "dtype",
)


def itq_layer(context: Context, config, labels):
  """The hash layer that makes ITQ's codes of the teacher's features.

  The outputs before tanh have a root mean square of 1 over the training rows.

  References:
    Our own start.
  """
  features = centred_features(labels)
  fitted = fit(context, "itq", features, config.bits, config.seed)

  @jax.jit
  def layer(fitted, features, weights, centre):
    outputs = (features - fitted.mean) @ fitted.projection  # [rows, bits]
    spread = jnp.sqrt(weights @ jnp.mean(outputs**2, axis=1) / weights.sum())
    kernel = fitted.projection / spread
    return {"kernel": kernel, "bias": -(centre + fitted.mean) @ kernel}

  return layer(fitted, features, train_weights(context), labels["centre"])


def start_at_itq(context: Context, config, network, outputs) -> None:
  """Gives a hash network `itq_layer`, and a classifier, if any, that knows nothing yet.

  Args:
    context: Devices and images.
    config: ``bits`` and ``seed`` are read.
    network: Changed in place.
    outputs: Of the stage `udh_jax.stages.features` or `udh_jax.stages.soft_labels`.
  """
  parameters = network["variables"]["params"]
  if "head" in parameters:
    parameters["head"] = jax.tree.map(jnp.zeros_like, parameters["head"])
  parameters["hash"] = mesh_lib.replicate(context.mesh, itq_layer(context, config, outputs))


def student_start(context: Context, config, teacher, labels):
  """The student before training: a network whose ``variables`` are those of `HashNetwork`.

  One that starts at the teacher has its backbone, ITQ's layer for a hash layer and a classifier
  that knows nothing yet.
  """
  student = config.student
  if student.start == "teacher":
    about = facts(teacher)
    require(
      student.backbone == about["backbone"],
      f"student.start is 'teacher', but the student's backbone is {student.backbone} and the "
      f"teacher's {about['backbone']}; set student.start to 'random' or the backbones alike.",
    )
    backbone = backbone_of(teacher, config.dtype)
  else:
    require(
      student.start == "random",
      f"student.start is {student.start!r}; choose 'teacher' or 'random'.",
    )
    backbone = create_backbone(student.backbone, dtype=jnp.dtype(config.dtype))
    about = {
      "backbone": student.backbone,
      "padding": backbone.padding,
      "mean": IMAGENET_MEAN,
      "std": IMAGENET_STD,
      "labels_used": facts(teacher)["labels_used"],
      "source": "random",
      "sha256": "",
    }
  module = HashNetwork(backbone, config.bits, clusterings.num_logits(config))
  network = new_network(
    context, module, about, (1, student.image_size, student.image_size, 3), seed=config.seed
  )
  if student.start == "teacher":
    start_at(network, teacher)
    start_at_itq(context, config, network, labels)
  return module, network


def distill(context: Context, config, inputs) -> Work:
  """Trains the hash network on augmented images and the teacher's soft labels.

  L = tau^2 KL(p || softmax(z / tau)), the mean over clusterings, each image weighed by its
  confidence,
  + lambda_q mean (u - sign(u))^2 + lambda_b mean_bits (mean_i u_i)^2.

  Outputs: a network whose ``variables`` are those of `HashNetwork`.

  References:
    UDH-ECC, stage 2: the structure is the paper's, the loss our own.
  """
  settings, size = config.distill, config.student.image_size
  labels = inputs["soft_labels"]
  module, network = student_start(context, config, inputs["teacher"], labels)
  prepare = preprocess(network)

  def loss(parameters, constants, batch, key):
    views = prepare(augment(key, batch["image"], batch["index"], size=size, **settings.augment))
    relaxed, logits = module.apply({"params": parameters, **constants["fixed"]}, views)
    weights = batch["weight"]
    trusted = weights * constants["confidence"][batch["index"]] ** settings.confidence_power
    probabilities = constants["probabilities"][batch["index"]]
    divergence = distillation_loss(
      *clusterings.as_rows(probabilities, clusterings.heads(logits, config)),
      temperature=config.soft_labels.temperature,
      weights=clusterings.row_weights(trusted, config),
    )
    quantisation = quantisation_loss(relaxed, weights=weights)
    balance = bit_balance_loss(relaxed, weights=weights)
    value = (
      divergence + settings.quantisation_weight * quantisation + settings.balance_weight * balance
    )
    return value, {"divergence": divergence, "quantisation": quantisation, "balance": balance}

  constants = {
    "probabilities": labels["probabilities"],
    "confidence": labels["confidence"],
  }
  return train_network(context, loss, network, constants, settings=settings, seed=config.seed)
