"""Features in, places in the graph of their nearest neighbours out, to look for clusters in."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from udh_jax.clustering.neighbours import nearest_neighbours, neighbour_embedding
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.map_rows import train_weights

SPACES = ("features", "neighbours")


def side_by_side(rounds: Sequence[jax.Array]) -> jax.Array:
  """Rows whose products are the means of those of all ``[rows, d]`` arrays given."""
  return jnp.concatenate(rounds, axis=1) / math.sqrt(len(rounds))


def embedding(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Places training images by `neighbour_embedding` of their features.

  Clusters of features are balls; classes are not, but an image's nearest neighbours are of its
  class more often than its centroid is. Of several rounds two images are as near as the mean of
  their cosines says: training on pseudo labels drops what these do not tell, and with it what would
  correct them.

  Inputs: ``features``, and those of the rounds before under any other names.

  Outputs: ``features`` float32 ``[rows, cluster.dims]``, 0 for images that are not for training.

  References:
    Our own choices; that neighbours tell more than clusters is Van Gansbeke et al., SCAN, ECCV
    2020.
  """
  settings = config.cluster
  rows, whole = PartitionSpec(mesh_lib.DATA_AXIS), PartitionSpec()
  count = min(settings.neighbours, max(1, len(context.dataset.splits.train) - 1))

  def function(features, weights, key):
    found = nearest_neighbours(features, count, weights=weights, axis_name=mesh_lib.DATA_AXIS)
    return neighbour_embedding(found, settings.dims, key=key, axis_name=mesh_lib.DATA_AXIS)

  mapped = jax.shard_map(function, mesh=context.mesh, in_specs=(rows, rows, whole), out_specs=rows)
  place = jax.jit(lambda rounds, weights, key: mapped(side_by_side(rounds), weights, key))

  def finish(state):
    del state
    key = jax.random.key(config.seed)
    rounds = [inputs[role]["features"] for role in sorted(inputs)]
    return {"features": place(rounds, train_weights(context), key)}

  return Work(finish=finish, row_outputs=("features",))


STAGE = Stage("embedding", embedding, ("cluster.neighbours", "cluster.dims", "seed"), version=2)
