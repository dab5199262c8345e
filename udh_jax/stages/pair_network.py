"""The image and the text network of a cross-modal method, and how a batch reaches them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from udh_jax.encoders.pair import pair_module
from udh_jax.errors import require
from udh_jax.numerics import with_fixed_signs
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context, Inputs, Work
from udh_jax.stages.features import as_the_backbone_made_them
from udh_jax.stages.network import Network, NewNetwork, facts, new_network, plain_view, variables_of
from udh_jax.stages.training import Loss, augmented_views, train

_BLOCK = 4096  # rows whose moments are computed at once
_WIDEST = 8192  # features whose principal directions are looked for
_NOTHING = 1e-10  # of the largest moment: what rounding of float32 leaves where there is nothing
# What is known of images that come as features: no network of ours has seen a picture.
_GIVEN = {"backbone": "", "padding": "", "mean": [], "std": [], "source": "given", "sha256": ""}


def new_pair_network(
  context: Context, config: ConfigDict, settings: ConfigDict, inputs: Inputs, *, bits: int
) -> NewNetwork:
  """A network with random layers, on a published backbone where images are pictures.

  Args:
    context: Devices and pairs.
    config: ``seed`` and ``dtype`` are read.
    settings: ``hidden``, ``dropout``, ``directions``, ``trained`` and ``image_size``.
    inputs: None where images are features; else ``backbone``, a network, and the ``features`` that
      it made: what the layers on it are fitted to, and where nothing of it is trained (``trained``
      is "head") what they read.
    bits: Length of the codes.

  Returns:
    The network; its ``about`` holds ``bits`` and `LAYER_FIELDS` besides.

  Raises:
    InputError: If there are no texts, or pictures and no backbone.
  """
  dataset, texts, backbone = context.dataset, context.dataset.texts, inputs.get("backbone")
  require(
    texts is not None,
    f"The data set {dataset.name} has no texts, which this method learns from; choose one that "
    "has, such as wikipedia, mirflickr25k or nus_wide.",
  )
  require(
    backbone or not dataset.has_pictures,
    f"teacher.weights is empty, but the images of {dataset.name} are pictures; name published "
    "weights, such as hf-hub:timm/mobilenetv2_100.ra_in1k.",
  )
  assert texts is not None
  known = facts(backbone) if backbone else _GIVEN | {"labels_used": dataset.labels_used}
  train = dataset.splits.train
  if backbone:
    made = jax.jit(as_the_backbone_made_them)(dict(inputs["features"]))
    features = mesh_lib.to_host(made, len(dataset.images))
  else:
    features = np.asarray(dataset.images)
  turn = None
  if settings.directions and features.shape[1] > _WIDEST:
    say(
      f"[images] {features.shape[1]:,} features, more than {_WIDEST:,}: all are read, and not "
      f"their {settings.directions} principal directions"
    )
  if 0 < settings.directions < features.shape[1] <= _WIDEST:
    turn = principal_directions(features, train, settings.directions)
  layers = {
    "hidden": settings.hidden,
    "dropout": settings.dropout,
    "image_head": "perceptron",
    "directions": 0 if turn is None else settings.directions,
  }
  reads = {"reads_features": backbone is not None and settings.trained == "head"}
  about = known | {"bits": bits, **layers, **reads}
  module = pair_module(about, config.dtype)
  side = settings.image_size
  image_shape = (side, side, 3) if dataset.has_pictures else dataset.image_shape
  shapes = (1, *image_shape), (1, texts.shape[1])
  network = new_network(context, module, about, *shapes, seed=config.seed, teacher=backbone)
  scalings = dict(network.variables["scaling"])
  if texts.dtype == np.float32:  # tags and counts stay as they are
    scalings["text_layers"] = column_scaling(texts, train)
  if turn is not None:
    rows = features[train] @ turn
    scalings["image_layers"] = column_scaling(rows, np.arange(len(rows))) | {"directions": turn}
  else:
    scalings["image_layers"] = column_scaling(features, train)
  scalings = mesh_lib.replicate(context.mesh, mesh_lib.from_main(scalings))
  return network._replace(variables={**network.variables, "scaling": scalings})


def principal_directions(array: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
  """The directions that hold most of the square lengths of rows, which are not centred.

  Features of networks are wide, and most of their columns hold little: scaled to one variance,
  these would drown the others.

  Args:
    array: Array of shape ``[n, d]``, float32.
    rows: The rows that count. Integer array.
    count: How many directions, at most d.

  Returns:
    float32 array of shape ``[d, count]``, orthonormal columns; 0 those in which these rows hold
    nothing but rounding, as where they are fewer: what others hold there is not known.

  References:
    Our own choice; docs/results.md has what it gains.
  """
  width = array.shape[1]
  squares = np.zeros((width, width))
  for start in range(0, len(rows), _BLOCK):
    block = array[rows[start : start + _BLOCK]].astype(np.float64)
    squares += block.T @ block
  held, vectors = np.linalg.eigh(squares)
  vectors = np.where(held > _NOTHING * held[-1], vectors, 0)[:, ::-1][:, :count]
  return with_fixed_signs(vectors).astype(np.float32)


def column_scaling(array: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
  """What brings each column to mean 0 and variance 1.

  Args:
    array: Array of shape ``[n, d]``, float32.
    rows: The rows that count. Integer array.

  Returns:
    ``mean`` and ``scale`` (1 / standard deviation, 0 for a constant column), float32 ``[d]``.
  """
  blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
  mean = sum(array[b].sum(axis=0, dtype=np.float64) for b in blocks) / len(rows)
  variance = sum(((array[b] - mean) ** 2).sum(axis=0) for b in blocks) / len(rows)
  spread = np.sqrt(variance)
  scale = np.where(spread > 1e-6 * np.maximum(np.abs(mean), 1e-30), 1, 0) / np.maximum(
    spread, 1e-30
  )
  return {"mean": mean.astype(np.float32), "scale": scale.astype(np.float32)}


def reads_features(network: Network) -> bool:
  """Whether the image network is trained on features that its backbone made once."""
  return facts(network)["reads_features"]


def features_read(network: Network, inputs: Inputs) -> dict[str, jax.Array]:
  """The input ``features`` of a stage where the network `reads_features`, else nothing."""
  return dict(inputs["features"]) if reads_features(network) else {}


def image_view(
  network: Network, size: int, training: ConfigDict | None = None
) -> Callable[..., jax.Array]:
  """The function from a batch to what the image network takes: ``(batch, frozen, key) -> images``.

  ``frozen`` are the outputs of `udh_jax.stages.features` where the network `reads_features`, else
  they are not read; ``key`` is random, where views are.

  Args:
    network: A pair network.
    size: Side that pictures are brought to.
    training: Its ``augment`` has the options of random views; None shows whole pictures.
  """
  if reads_features(network):
    return lambda batch, frozen, key=None: as_the_backbone_made_them(frozen, batch["index"])
  if facts(network)["backbone"] and training is not None:
    views = augmented_views(network, training, size)
    return lambda batch, frozen, key=None: views(batch, key)
  plain = plain_view(network, size) if facts(network)["backbone"] else lambda images: images
  return lambda batch, frozen, key=None: plain(batch["image"])


def training_outputs(network: NewNetwork, settings: ConfigDict) -> Callable:
  """The function from parameters and a batch to both networks' outputs in training.

  Args:
    network: A pair network.
    settings: ``image_size`` and ``augment`` are read.

  Returns:
    ``(parameters, constants, batch, key) -> (h of the images, h of the texts)``, each
    ``[b, bits]``; ``constants["fixed"]`` are the variables that are not trained and
    ``constants["frozen"]`` what `image_view` calls so.
  """
  from_features = reads_features(network.stored)
  view = image_view(network.stored, settings.image_size, settings)

  def outputs(parameters, constants, batch, key):
    images_key, dropout_key = jax.random.split(key)
    return network.module.apply(
      variables_of(parameters, constants["fixed"]),
      view(batch, constants["frozen"], images_key),
      batch["text"],
      train=True,
      from_features=from_features,
      rngs={"dropout": dropout_key},
    )

  return outputs


def train_pairs(
  context: Context,
  loss: Loss,
  network: NewNetwork,
  constants: Any,
  *,
  settings: ConfigDict,
  seed: int,
) -> Work:
  """`train` by `pair_optimizer`, in ``settings.epochs`` passes over the training pairs.

  Where the network `reads_features`, ``loss`` looks at these and no picture is read.
  """
  steps = -(-settings.epochs * len(context.dataset.splits.train) // settings.batch_size)
  return train(
    context,
    loss,
    network,
    constants,
    settings=settings,
    seed=seed,
    optimizer=pair_optimizer(settings, steps),
    num_steps=steps,
    images=not reads_features(network.stored),
  )


def pair_optimizer(settings: ConfigDict, num_steps: int) -> optax.GradientTransformation:
  """Gradient descent, with rates for the backbone and for the layers of either side.

  Args:
    settings: ``optimizer``: "sgd" with ``momentum``, or "adam"; ``backbone_learning_rate``,
      ``image_learning_rate``, ``text_learning_rate``, ``weight_decay`` (added to the gradients),
      and ``decay``: "none" keeps the rates, "cosine" lowers them to 0.
    num_steps: How many steps there will be.

  References:
    Su et al., DJSRH, ICCV 2019: gradient descent, momentum 0.9, weight decay 5e-4, constant rates.
  """

  def descent(rate):
    if settings.decay == "cosine":
      rate = optax.cosine_decay_schedule(rate, num_steps)
    return optax.chain(
      optax.add_decayed_weights(settings.weight_decay),
      optax.adam(rate) if settings.optimizer == "adam" else optax.sgd(rate, settings.momentum),
    )

  rates = {
    "backbone": descent(settings.backbone_learning_rate),
    "image_layers": descent(settings.image_learning_rate),
    "text_layers": descent(settings.text_learning_rate),
  }
  return optax.partition(rates, lambda parameters: {name: name for name in parameters})
