"""Hash networks before training: a teacher's backbone, a hash layer that is random or fitted."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.coding.baselines import LinearHash
from udh_jax.coding.binary import pack_codes, sign
from udh_jax.models.heads import HashNetwork
from udh_jax.numerics import matmul
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs
from udh_jax.stages.baselines import centred_features, fitted
from udh_jax.stages.features import as_the_backbone_made_them
from udh_jax.stages.map_rows import train_weights
from udh_jax.stages.network import Network, NewNetwork, backbone_of, facts, new_network

STARTS = ("itq", "random")  # "itq" is the start of `first_hash_function`


def new_hash_network(
  context: Context,
  config: ConfigDict,
  teacher: Network,
  *,
  num_classes: int,
  classifier: str = "codes",
  **about: Any,
) -> NewNetwork:
  """A hash network whose backbone starts at the teacher's; the rest is random.

  Args:
    context: Devices.
    config: ``bits``, ``dtype``, ``seed`` and ``student.image_size`` are read.
    teacher: A network.
    num_classes: Of the classifier; 0 leaves it out.
    classifier: What it reads, see `HashNetwork`.
    **about: What is not as of the teacher, see `udh_jax.stages.network.describe`.
  """
  size = config.student.image_size
  module = HashNetwork(backbone_of(teacher, config.dtype), config.bits, num_classes, classifier)
  known = facts(teacher) | about
  return new_network(context, module, known, (1, size, size, 3), seed=config.seed, teacher=teacher)


def linear_layer(
  context: Context, features: Mapping[str, Any], hash_function: LinearHash
) -> dict[str, jax.Array]:
  """The hash layer that makes a linear hash function's codes of the network's features.

  Outputs before tanh have a root mean square of 1 over the training rows.

  Args:
    context: Devices and images.
    features: Outputs of the stage `udh_jax.stages.features` or `udh_jax.stages.soft_labels`.
    hash_function: A `LinearHash` fitted on those features.

  Returns:
    ``kernel`` ``[d, bits]`` and ``bias`` ``[bits]``.

  References:
    Our own scale.
  """

  @jax.jit
  def layer(fitted, rows, weights, centre):
    outputs = matmul(rows - fitted.mean, fitted.projection)  # [rows, bits]
    spread = jnp.sqrt(matmul(weights, jnp.mean(outputs**2, axis=1)) / weights.sum())
    kernel = fitted.projection / jnp.where(spread > 0, spread, 1)  # 0 where all images are alike
    return {"kernel": kernel, "bias": -matmul(centre + fitted.mean, kernel)}

  rows = centred_features(features)
  return layer(hash_function, rows, train_weights(context), features["centre"])


@jax.jit
def layer_codes(layer: Mapping[str, jax.Array], features: Mapping[str, jax.Array]) -> jax.Array:
  """Codes by a hash layer on a backbone that stayed as it is, without reading a picture again.

  Args:
    layer: ``kernel`` ``[d, bits]`` and ``bias`` ``[bits]``.
    features: Outputs of the stage `udh_jax.stages.features`.

  Returns:
    uint8 array of shape ``[rows, ceil(bits / 8)]``.
  """
  outputs = matmul(as_the_backbone_made_them(features), layer["kernel"]) + layer["bias"]
  return pack_codes(sign(outputs))


def first_hash_function(inputs: Inputs) -> LinearHash:
  """What a hash layer begins at: the one of ``start`` where there is one, else ITQ's.

  Args:
    inputs: ``start``, outputs of the stage `udh_jax.stages.start`, or ``baselines``, of
      `udh_jax.stages.baselines`.
  """
  if "start" in inputs:
    return LinearHash(**inputs["start"]["function"])
  return fitted(inputs["baselines"], "itq")


def started_at(
  context: Context,
  network: NewNetwork,
  features: Mapping[str, Any],
  hash_function: LinearHash,
) -> NewNetwork:
  """A hash network with a `linear_layer`, and a classifier, if any, that knows nothing yet.

  Args:
    context: Devices and images.
    network: A hash network.
    features: See `linear_layer`.
    hash_function: See `linear_layer`.

  Returns:
    The network. Its classifier counts as fresh: zeros are not useful values.
  """
  layer = linear_layer(context, features, hash_function)
  started = network.with_parts(hash=mesh_lib.replicate(context.mesh, layer))
  if "head" not in network.parameters:
    return started
  zeros = jax.tree.map(jnp.zeros_like, network.parameters["head"])
  return started.with_parts(head=zeros)._replace(fresh=started.fresh)


def pairwise_network(
  context: Context,
  config: ConfigDict,
  inputs: Inputs,
  *,
  num_classes: int,
  start: str,
  classifier: str = "codes",
) -> NewNetwork:
  """The hash network that a pair-wise method trains.

  Args:
    context: Devices and images.
    config: As of `new_hash_network`.
    inputs: ``teacher``; and for a start at codes ``features`` and what `first_hash_function` reads.
    num_classes: Of the classifier; 0 leaves it out.
    start: Of the hash layer: "itq" or "random".
    classifier: What it reads, see `HashNetwork`.
  """
  network = new_hash_network(
    context, config, inputs["teacher"], num_classes=num_classes, classifier=classifier
  )
  if start == "random":
    return network
  return started_at(context, network, inputs["features"], first_hash_function(inputs))
