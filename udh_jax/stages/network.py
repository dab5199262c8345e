"""A network as stages hand it on: its variables, and what one has to know to call it."""

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from udh_jax.data.augmentation import normalise, resize
from udh_jax.models.registry import create_backbone, is_last
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context

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


def backbone_variables(network: Network) -> dict[str, Any]:
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


TRAINED = ("all", "last", "head")


def variables_of(parameters: Any, fixed: Mapping[str, Any]) -> dict[str, Any]:
  """All variables of a network, from what is trained and from `NewNetwork.fixed`."""
  flat = traverse_util.flatten_dict(fixed["params"]) | traverse_util.flatten_dict(parameters)
  return {**fixed, "params": traverse_util.unflatten_dict(flat)}


def _part(tree: Any, chosen: Callable[[tuple[str, ...]], bool]) -> Any:
  flat = traverse_util.flatten_dict(dict(tree))
  return traverse_util.unflatten_dict({path: leaf for path, leaf in flat.items() if chosen(path)})


def mean_of_weights(before: Any, after: Any, share: float) -> Any:
  """The mean of parameters before and after training, of which ``share`` is after.

  References:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
  """
  return jax.tree.map(lambda b, a: share * a + (1 - share) * b, before, after)


class NewNetwork(NamedTuple):
  """A network before training.

  Attributes:
    module: Its Flax module.
    variables: By kind; ``params`` is what is trained. Arrays on all devices.
    about: See `describe`, on all devices.
    fresh: Names of the top-level parts of ``params`` that hold random values. They learn at the
      rate of fresh layers; the others were given values of use.
    trained: Which parts of the backbone are trained, one of `TRAINED`; all else always is.
  """

  module: nn.Module
  variables: Mapping[str, Any]
  about: jax.Array
  fresh: frozenset[str]
  trained: str = "all"

  @property
  def _is_trained(self) -> Callable[[tuple[str, ...]], bool]:
    backbone = facts(self.stored)["backbone"]

    def function(path):
      if self.trained == "all" or path[0] != "backbone":
        return True
      return self.trained == "last" and is_last(backbone, path[1])

    return function

  @property
  def parameters(self) -> Any:
    """What is trained."""
    return _part(self.variables["params"], self._is_trained)

  @property
  def fixed(self) -> dict[str, Any]:
    """Variables that are not trained, by kind; of the parameters, those that stay as they are."""
    kept = _part(self.variables["params"], lambda path: not self._is_trained(path))
    return {**self.variables, "params": kept}

  @property
  def stored(self) -> dict[str, Any]:
    """The network as stages hand it on."""
    return {"variables": dict(self.variables), "about": self.about}

  def with_parameters(self, parameters: Any) -> dict[str, Any]:
    """The network as stages hand it on, with other parameters."""
    return self._replace(variables=variables_of(parameters, self.fixed)).stored

  def with_parts(self, **parts: Any) -> "NewNetwork":
    """Some top-level parts of ``params`` have these values; they are fresh no more."""
    variables = {**self.variables, "params": {**self.variables["params"], **parts}}
    return self._replace(variables=variables, fresh=self.fresh - parts.keys())


def new_network(
  context: Context,
  module: nn.Module,
  about: Mapping[str, Any],
  *shapes: tuple[int, ...],
  seed: int,
  teacher: Network | None = None,
) -> NewNetwork:
  """Random variables for ``module``, on all devices; its backbone may have a teacher's.

  Args:
    context: Devices.
    module: Called with one float32 array of each shape.
    about: See `describe`.
    *shapes: Of the arrays, with a leading 1 for the batch.
    seed: Decides the variables.
    teacher: A network whose backbone's variables are taken, so that none are drawn for it.
  """
  examples = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]

  # Lazily: without the network's computation, which would take long to compile.
  def drawn(key):
    variables = module.lazy_init(key, *examples)
    if teacher is None:
      return variables
    return {
      kind: {part: value for part, value in parts.items() if part != "backbone"}
      for kind, parts in variables.items()
    }

  random = mesh_lib.replicate(context.mesh, jax.jit(drawn)(jax.random.key(seed)))
  given = {} if teacher is None else backbone_variables(teacher)
  variables = {
    kind: {**random.get(kind, {}), **({"backbone": given[kind]} if kind in given else {})}
    for kind in random.keys() | given.keys()
  }
  return NewNetwork(
    module,
    variables,
    mesh_lib.replicate(context.mesh, describe(about)),
    frozenset(random["params"]),
  )
