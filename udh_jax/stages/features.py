"""Images in, features out: the teacher's pooled features, centred and of unit length."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.sharding import mean_of_rows
from udh_jax.stages.map_rows import map_rows, train_weights
from udh_jax.stages.network import backbone_of, backbone_variables, plain_view


def reading_size(config: ConfigDict) -> int:
  """Side at which trained networks read images; they may have been trained at another.

  Random crops make objects look larger than they are in whole images, so that a network is often
  better at a larger side than it was trained at.

  References:
    Touvron et al., Fixing the train-test resolution discrepancy, NeurIPS 2019.
  """
  return config.features.image_sizes[-1]


def centre_and_normalise(
  features: jax.Array, weights: jax.Array, *, axis_name: str | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Subtracts the mean of the weighted rows and scales each row to unit length.

  Args:
    features: Array of shape ``[n, d]``.
    weights: 1 for rows that the mean is taken over, else 0. Array of shape ``[n]``.
    axis_name: Mapped axis that the rows are split over.

  Returns:
    The scaled rows ``[n, d]``, where a row equal to the mean stays 0; the length of each once it
    is centred, ``[n]``; and the mean ``[d]``.

  References:
    Our own choice; the paper's abstract is silent on preprocessing.
  """
  centre, _ = mean_of_rows(features, weights, axis_name)
  centred = features - centre
  lengths = jnp.linalg.norm(centred, axis=1)
  return centred / jnp.maximum(lengths, 1e-12)[:, None], lengths, centre


def centred_rows(context: Context, features: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """`centre_and_normalise` over the training rows of all devices.

  Raises:
    InputError: If a feature is not finite; in all processes.
  """
  finite = jax.jit(_are_finite, out_shardings=mesh_lib.replicated(context.mesh))(features)
  require(
    finite,
    "The network's features are not finite: some are NaN or infinity; check its weights.",
  )
  rows, whole = PartitionSpec(mesh_lib.DATA_AXIS), PartitionSpec()
  function = functools.partial(centre_and_normalise, axis_name=mesh_lib.DATA_AXIS)
  mapped = jax.shard_map(
    function, mesh=context.mesh, in_specs=(rows, rows), out_specs=(rows, rows, whole)
  )
  return jax.jit(mapped)(features, train_weights(context))


def _are_finite(features):
  return jnp.isfinite(features).all()


def as_the_backbone_made_them(
  frozen: Mapping[str, jax.Array], rows: jax.Array | None = None
) -> jax.Array:
  """Features before they were centred and scaled, float32.

  Args:
    frozen: Outputs of `features`.
    rows: Which ones; None is all.
  """
  features, length = frozen["features"], frozen["length"]
  if rows is not None:
    features, length = features[rows], length[rows]
  return features * length[:, None] + frozen["centre"]


def features(
  context: Context,
  config: ConfigDict,
  inputs: Inputs,
  *,
  image_size: int,
  besides: Mapping[str, Callable[[Any, jax.Array], jax.Array]] | None = None,
) -> Work:
  """Features of every image at ``image_size`` pixels.

  Outputs: ``features`` ``[rows, d]``, see `centre_and_normalise`, with the ``length`` ``[rows]``
  and the ``centre`` ``[d]`` they had before; and what ``besides`` makes.

  Args:
    context: Devices and images.
    config: Of the stage.
    inputs: ``teacher``, a network.
    image_size: Side that images are read at.
    besides: Other outputs, by name: ``(variables, images uint8 [b, h, w, 3]) -> [b, ...]``. Where
      one reads the same network at the same size, XLA makes one reading of both.

  References:
    UDH-ECC, stage 1: "a pre-trained teacher network to extract deep image features".
  """
  network = inputs["teacher"]
  module, view = backbone_of(network, config.dtype), plain_view(network, image_size)
  functions: dict[str, Callable[[Any, jax.Array], Any]] = {
    "features": lambda variables, images: module.apply(variables, view(images)),
    **(besides or {}),
  }

  def finish(rows):
    scaled, lengths, centre = centred_rows(context, rows["features"])
    return {**rows, "features": scaled, "length": lengths, "centre": centre}

  return map_rows(
    context,
    lambda variables, batch: {
      name: function(variables, batch["image"]) for name, function in functions.items()
    },
    backbone_variables(network),
    batch_size=config.features.batch_size,
    finish=finish,
    row_outputs=(*functions, "length"),
  )


# Give it ``image_size`` by `Stage.with_options`.
STAGE = Stage("features", features, ("features", "dtype"), free=("features.batch_size",))
