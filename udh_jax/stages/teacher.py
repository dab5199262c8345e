"""The pre-trained teacher: published weights, or contrastive pre-training where there are none."""

import jax
import jax.numpy as jnp

from udh_jax.data.augmentation import augment
from udh_jax.errors import require
from udh_jax.losses.contrastive import nt_xent
from udh_jax.models.heads import Classifier
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD, load_weights
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Stage, Work
from udh_jax.stages.network import describe, new_network, preprocess
from udh_jax.stages.training import train

PUBLISHED_FIELDS = ("teacher",)
CONTRASTIVE_FIELDS = ("teacher", "pretrain", "seed", "dtype")


def stage(config) -> Stage:
  """The stage ``teacher``, of the kind that ``config.teacher.weights`` asks for."""
  if config.teacher.weights:
    return Stage("teacher", published_teacher, PUBLISHED_FIELDS)
  return Stage("teacher", contrastive_teacher, CONTRASTIVE_FIELDS)


def _require_pictures(context: Context) -> None:
  dataset = context.dataset
  require(
    dataset.has_pictures,
    f"The images of {dataset.name} are features, which no teacher reads; choose a data set of "
    "pictures, or leave out teacher.weights in a method that learns from features.",
  )


def published_teacher(context: Context, config, inputs) -> Work:
  """Reads published weights. Outputs: a network (``variables`` of the backbone, ``about``)."""
  del inputs
  _require_pictures(context)

  def finish(state):
    del state
    weights = load_weights(config.teacher.backbone, config.teacher.weights)
    about = {
      "backbone": config.teacher.backbone,
      "padding": weights.padding,
      "mean": weights.mean,
      "std": weights.std,
      "labels_used": weights.labels_used,
      "source": weights.source,
      "sha256": weights.sha256,
    }
    return mesh_lib.replicate(
      context.mesh, {"variables": weights.variables, "about": describe(about)}
    )

  return Work(finish=finish)


def contrastive_teacher(context: Context, config, inputs) -> Work:
  """Trains a teacher from nothing: two augmented views of an image against the batch (NT-Xent).

  Our own stand-in for the paper's pre-trained network where no weights are given.
  """
  del inputs
  _require_pictures(context)
  size, settings = config.teacher.image_size, config.pretrain
  backbone = create_backbone(config.teacher.backbone, dtype=jnp.dtype(config.dtype))
  module = Classifier(backbone, settings.projection)
  about = {
    "backbone": config.teacher.backbone,
    "padding": backbone.padding,
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "labels_used": "none",
    "source": "contrastive pre-training on these images",
    "sha256": "",
  }
  network = new_network(context, module, about, (1, size, size, 3), seed=config.seed)
  prepare = preprocess(network)
  parameters = network["variables"]["params"]
  constants = {k: v for k, v in network["variables"].items() if k != "params"}

  def loss(parameters, constants, batch, key):
    views = [
      prepare(augment(k, batch["image"], batch["index"], size=size, **settings.augment))
      for k in jax.random.split(key)
    ]
    (first, _), (second, _) = (
      module.apply({"params": parameters, **constants}, view) for view in views
    )
    value = nt_xent(first, second, temperature=settings.temperature, weights=batch["weight"])
    return value, {}

  def finish(parameters):
    variables = {"params": parameters["backbone"]}
    if "batch_stats" in constants:
      variables["batch_stats"] = constants["batch_stats"]["backbone"]
    return {"variables": variables, "about": network["about"]}

  return train(
    context,
    loss,
    parameters,
    constants,
    rows=context.dataset.splits.train,
    settings=settings,
    seed=config.seed,
    finish=finish,
  )
