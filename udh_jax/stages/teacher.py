"""The pre-trained teacher: published weights, or contrastive pre-training where there are none."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.losses.contrastive import nt_xent
from udh_jax.models.heads import Classifier
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD, load_weights, local_digest
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.network import backbone_variables, describe, new_network
from udh_jax.stages.training import forward_on_views, train


def _require_pictures(context: Context) -> None:
  dataset = context.dataset
  require(
    dataset.has_pictures,
    f"The images of {dataset.name} are features, which no teacher reads; choose a data set of "
    "pictures, or leave out teacher.weights in a method that learns from features.",
  )


def published_teacher(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Reads published weights. Outputs: a network (``variables`` of the backbone, ``about``).

  Raises:
    InputError: From the work, if a process of the run has other weights than process 0.
  """
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
    # Each process may have them in a place of its own.
    alike = {name: value for name, value in about.items() if name != "source"}
    mesh_lib.require_same("The teacher's weights", repr(alike))
    about["source"] = mesh_lib.text_from_main(weights.source)
    return mesh_lib.replicate(
      context.mesh, {"variables": weights.variables, "about": describe(about)}
    )

  return Work(finish=finish)


def contrastive_teacher(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
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
  forward = forward_on_views(network, settings, size)

  def loss(parameters, constants, batch, key):
    (first, _), (second, _) = (
      forward(parameters, constants, batch, k) for k in jax.random.split(key)
    )
    value = nt_xent(
      first,
      second,
      temperature=settings.temperature,
      weights=batch["weight"],
      rows=batch["index"],
    )
    return value, {}

  def finish(trained):
    return {"variables": backbone_variables(trained), "about": trained["about"]}

  return train(context, loss, network, {}, settings=settings, seed=config.seed, finish=finish)


def _weights(config: ConfigDict) -> dict[str, str]:
  return {"teacher.weights": local_digest(config.teacher.weights)}


PUBLISHED = Stage("teacher", published_teacher, ("teacher",), files=_weights)
# Version 2: another copy of an image in a batch is not its negative.
CONTRASTIVE = Stage(
  "teacher",
  contrastive_teacher,
  ("teacher", "pretrain", "seed", "dtype"),
  free=("pretrain.chunk_size",),
  version=2,
)


def teacher_stage(config: ConfigDict) -> Stage:
  """The stage ``teacher``, of the kind that ``config.teacher.weights`` asks for.

  Raises:
    InputError: If there are no weights and ``pretrain.trained`` leaves out a part of the backbone.
  """
  if config.teacher.weights:
    return PUBLISHED
  require(
    config.pretrain.trained == "all",
    f"pretrain.trained is {config.pretrain.trained!r}, but teacher.weights is empty: what is not "
    "trained would stay random; set pretrain.trained to 'all' or name weights.",
  )
  return CONTRASTIVE
