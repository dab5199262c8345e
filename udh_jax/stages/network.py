"""A network as stages hand it on: its variables, and what one has to know to call it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.data.augmentation import normalise, resize
from udh_jax.models.heads import HashNetwork
from udh_jax.models.registry import create_backbone
from udh_jax.runtime import mesh as mesh_lib

Network = Mapping[str, Any]  # "variables": arrays; "about": see `describe`


def describe(about: Mapping[str, Any]) -> np.ndarray:
  """Text facts as an array, so that they lie in the checkpoint with the variables.

  Args:
    about: ``backbone``, ``padding``, ``mean``, ``std``, ``labels_used``, ``source``, ``sha256``.

  Returns:
    UTF-8 JSON. Array of shape ``[bytes]``, uint8.
  """
  return np.frombuffer(json.dumps(dict(about), sort_keys=True).encode(), np.uint8)


def facts(network: Network) -> dict[str, Any]:
  """What `describe` was given."""
  return json.loads(np.asarray(network["about"]).tobytes())


def backbone_of(network: Network, dtype: str) -> nn.Module:
  """The module that ``network["variables"]`` belong to."""
  about = facts(network)
  return create_backbone(about["backbone"], dtype=jnp.dtype(dtype), padding=about["padding"])


def backbone_variables(network):
  """The variables of the backbone alone, of a network with or without a head."""
  variables = network["variables"]
  if "backbone" not in variables["params"]:
    return variables
  return {kind: tree["backbone"] for kind, tree in variables.items() if "backbone" in tree}


def preprocess(network: Network) -> Callable[[jax.Array], jax.Array]:
  """The function from images in [0, 1] to what the network was trained on."""
  about = facts(network)
  return lambda images: normalise(images, about["mean"], about["std"])


def plain_view(network: Network, size: int) -> Callable[[jax.Array], jax.Array]:
  """The function from stored uint8 images to the network's input, without augmentation."""
  prepare = preprocess(network)
  return lambda images: prepare(resize(images, size=size))


def new_network(
  context, module: nn.Module, about: Mapping[str, Any], *shapes: tuple[int, ...], seed: int
) -> dict[str, Any]:
  """Random variables for ``module``, on all devices.

  Args:
    context: Devices.
    module: Called with one float32 array of each shape.
    about: See `describe`.
    *shapes: Of the arrays, with a leading 1 for the batch.
    seed: Decides the variables.
  """
  examples = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  # Lazily: without the network's computation, which would take long to compile.
  variables = jax.jit(lambda key: module.lazy_init(key, *examples))(jax.random.key(seed))
  return {
    "variables": mesh_lib.replicate(context.mesh, variables),
    "about": mesh_lib.replicate(context.mesh, describe(about)),
  }


def new_hash_network(
  context, config, teacher: Network, *, num_classes: int, **about: Any
) -> tuple[HashNetwork, dict[str, Any]]:
  """A hash network whose backbone starts at the teacher's; the rest is random.

  Args:
    context: Devices.
    config: ``bits``, ``dtype``, ``seed`` and ``student.image_size`` are read.
    teacher: A network.
    num_classes: Of the classifier; 0 leaves it out.
    **about: What is not as of the teacher, see `describe`.

  Returns:
    The module, and the network.
  """
  size = config.student.image_size
  module = HashNetwork(backbone_of(teacher, config.dtype), config.bits, num_classes)
  network = new_network(
    context, module, facts(teacher) | about, (1, size, size, 3), seed=config.seed
  )
  start_at(network, teacher)
  return module, network


def start_at(network: Network, teacher: Network) -> None:
  """Gives a new network's backbone the variables of the teacher's."""
  for kind, tree in backbone_variables(teacher).items():
    network["variables"].setdefault(kind, {})["backbone"] = tree
