"""Features in, the spread of their distances out: two half Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from udh_jax.data.protocol import PAIRS, permutation
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.sharding import split_rows
from udh_jax.similarity.structure import HalfGaussians, fit_half_gaussians


def structure(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Fits `HalfGaussians` to the distances between randomly drawn training images.

  Outputs: its fields, scalars.

  References:
    SSDH: Yang et al., IJCAI 2018. That features are centred before is our own.
  """
  train = context.dataset.splits.train
  order = permutation(len(train), config.seed, PAIRS)[: config.structure.num_images]
  sample = split_rows(context.mesh, train[np.sort(order)].astype(np.int32), fill=-1)
  rows, whole = PartitionSpec(mesh_lib.DATA_AXIS), PartitionSpec()
  fit = jax.shard_map(
    lambda features, weights: fit_half_gaussians(
      features, weights=weights, axis_name=mesh_lib.DATA_AXIS
    ),
    mesh=context.mesh,
    in_specs=(rows, rows),
    out_specs=whole,
  )

  @jax.jit
  def function(features, sample):
    return fit(features[jnp.maximum(sample, 0)], (sample >= 0).astype(jnp.float32))

  def finish(state):
    del state
    return function(inputs["features"]["features"], sample)._asdict()

  return Work(finish=finish)


def fitted(outputs: Inputs) -> HalfGaussians:
  """The distributions in the outputs of `structure`."""
  return HalfGaussians(**{name: outputs[name] for name in HalfGaussians._fields})


STAGE = Stage("structure", structure, ("structure.num_images", "seed"))
