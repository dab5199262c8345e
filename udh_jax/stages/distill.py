"""Soft labels in, a hash network out."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.losses import bit_balance_loss, distillation_loss, quantisation_loss
from udh_jax.models.heads import HashNetwork
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.hash_network import first_hash_function, started_at
from udh_jax.stages.network import NewNetwork, backbone_of, facts, new_network
from udh_jax.stages.training import forward_on_views, made_views, train


def student_start(context: Context, config: ConfigDict, inputs: Inputs) -> NewNetwork:
  """The student before training: a `HashNetwork`.

  One that starts at the teacher has its backbone, for a hash layer that of `first_hash_function`
  and a classifier that knows nothing yet.
  """
  teacher = inputs["teacher"]
  student = config.student
  if student.start == "teacher":
    about = facts(teacher)
    backbone = backbone_of(teacher, config.dtype)
  else:
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
    context,
    module,
    about,
    (1, student.image_size, student.image_size, 3),
    seed=config.seed,
    teacher=None if student.start == "random" else teacher,
  )
  if student.start == "random":
    return network
  features = inputs.get("features", inputs["soft_labels"])
  return started_at(context, network, features, first_hash_function(inputs))


def distill(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains the hash network on augmented images and the teacher's soft labels.

  L = tau^2 KL(p || softmax(z / tau)), the mean over clusterings, each image weighed by its
  confidence,
  + lambda_q mean (u - sign(u))^2 + lambda_b mean_bits (mean_i u_i)^2.

  Outputs: a network whose ``variables`` are those of `HashNetwork`.

  References:
    UDH-ECC, stage 2: the structure is the paper's, the loss our own.
  """
  settings, labels = config.distill, inputs["soft_labels"]
  network = student_start(context, config, inputs)
  forward = forward_on_views(network, settings, config.student.image_size)

  def loss(parameters, constants, batch, key):
    relaxed, logits = forward(parameters, constants, batch, key)
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
    **made_views(inputs),
  }
  return train(context, loss, network, constants, settings=settings, seed=config.seed)


STAGE = Stage(
  "distill",
  distill,
  (
    "distill",
    "student",
    "bits",
    "soft_labels.temperature",
    *clusterings.FIELDS,
    "seed",
    "dtype",
  ),
)
