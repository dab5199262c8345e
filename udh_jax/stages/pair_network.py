"""The image and the text network of a cross-modal method, and how a batch reaches them."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from udh_jax.encoders.pair import LAYER_FIELDS, pair_module
from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.network import Network, NewNetwork, facts, new_network, plain_view, variables_of
from udh_jax.stages.training import Loss, augmented_views, train

_BLOCK = 4096  # rows whose moments are computed at once
# What is known of images that come as features: no network of ours has seen a picture.
_GIVEN = {"backbone": "", "padding": "", "mean": [], "std": [], "source": "given", "sha256": ""}


def new_pair_network(
  context: Context, config: ConfigDict, settings: ConfigDict, backbone: Network | None, *, bits: int
) -> NewNetwork:
  """A network with random layers, on a published backbone where images are pictures.

  Args:
    context: Devices and pairs.
    config: ``seed`` and ``dtype`` are read.
    settings: `LAYER_FIELDS` and ``image_size``.
    backbone: For pictures; None where images are features.
    bits: Length of the codes.

  Returns:
    The network; its ``about`` holds ``bits`` and `LAYER_FIELDS` besides.

  Raises:
    InputError: If there are no texts, or pictures and no backbone.
  """
  dataset, texts = context.dataset, context.dataset.texts
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
  about = known | {"bits": bits, **{name: settings[name] for name in LAYER_FIELDS}}
  module = pair_module(about, config.dtype)
  side = settings.image_size
  image_shape = (side, side, 3) if dataset.has_pictures else dataset.image_shape
  network = new_network(
    context, module, about, (1, *image_shape), (1, texts.shape[1]), seed=config.seed
  )
  if backbone:
    network = network.started_at(backbone)
  train, scalings = dataset.splits.train, dict(network.variables["scaling"])
  if texts.dtype == np.float32:  # tags and counts stay as they are
    scalings["text_layers"] = column_scaling(texts, train)
  if not backbone:
    scalings["image_layers"] = column_scaling(np.asarray(dataset.images), train)
  scalings = mesh_lib.replicate(context.mesh, scalings)
  return network._replace(variables={**network.variables, "scaling": scalings})


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


def image_view(
  network: Network, size: int, training: ConfigDict | None = None
) -> Callable[..., jax.Array]:
  """The function from a batch (and a random key) to what the image network takes.

  Args:
    network: A pair network.
    size: Side that pictures are brought to.
    training: Its ``augment`` has the options of random views; None shows whole pictures.
  """
  if facts(network)["backbone"] and training is not None:
    return augmented_views(network, training, size)
  plain = plain_view(network, size) if facts(network)["backbone"] else lambda images: images

  def view(batch: dict[str, jax.Array], key: jax.Array | None = None) -> jax.Array:
    del key
    return plain(batch["image"])

  return view


def training_outputs(network: NewNetwork, settings: ConfigDict) -> Callable:
  """The function from parameters and a batch to both networks' outputs in training.

  Args:
    network: A pair network.
    settings: ``image_size`` and ``augment`` are read.

  Returns:
    ``(parameters, constants, batch, key) -> (h of the images, h of the texts)``, each
    ``[b, bits]``; ``constants["fixed"]`` are the variables that are not trained.
  """
  view = image_view(network.stored, settings.image_size, settings)

  def outputs(parameters, constants, batch, key):
    images_key, dropout_key = jax.random.split(key)
    return network.module.apply(
      variables_of(parameters, constants["fixed"]),
      view(batch, images_key),
      batch["text"],
      train=True,
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
  """`train` by `pair_optimizer`, in ``settings.epochs`` passes over the training pairs."""
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
  )


def pair_optimizer(settings: ConfigDict, num_steps: int) -> optax.GradientTransformation:
  """Gradient descent with momentum, with a rate for the text network and one for all else.

  Args:
    settings: ``image_learning_rate``, ``text_learning_rate``, ``momentum``, ``weight_decay``, and
      ``decay``: "none" keeps the rates, "cosine" lowers them to 0.
    num_steps: How many steps there will be.

  References:
    Su et al., DJSRH, ICCV 2019: momentum 0.9, weight decay 5e-4, constant rates.
  """

  def descent(rate):
    if settings.decay == "cosine":
      rate = optax.cosine_decay_schedule(rate, num_steps)
    return optax.chain(
      optax.add_decayed_weights(settings.weight_decay),
      optax.sgd(rate, momentum=settings.momentum),
    )

  def parts(parameters):
    return {name: "text" if name == "text_layers" else "image" for name in parameters}

  rates = {
    "text": descent(settings.text_learning_rate),
    "image": descent(settings.image_learning_rate),
  }
  return optax.partition(rates, parts)
