"""Features in, pseudo labels out: equal-size clustering."""

import functools

import jax
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans
from udh_jax.clustering.members import clustering_specs
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.map_rows import train_weights


def cluster(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Clusters the training images, several times from other starts.

  Outputs: ``labels`` int32 ``[rows, H]``, -1 for images that are not for training, and the other
  fields of `Clustering` with one entry a clustering.

  References:
    UDH-ECC, stage 1: "the proposed equivalent constraint clustering algorithm". That there may be
    several is our own choice, after the heads of SeLa (Asano et al., ICLR 2020).
  """
  settings = config.cluster
  rows, whole = PartitionSpec(mesh_lib.DATA_AXIS), PartitionSpec()
  function = functools.partial(
    equal_size_kmeans,
    num_clusters=settings.num_clusters,
    num_restarts=settings.num_restarts,
    max_iterations=settings.max_iterations,
    min_size=settings.min_size or None,
    max_size=settings.max_size or None,
    axis_name=mesh_lib.DATA_AXIS,
  )
  mapped = jax.jit(
    jax.shard_map(
      lambda features, weights, key: function(features, weights=weights, key=key),
      mesh=context.mesh,
      in_specs=(rows, rows, whole),
      out_specs=clustering_specs(rows, whole),
    )
  )

  def finish(state):
    del state
    keys = jax.random.split(jax.random.key(config.seed), settings.num_clusterings)
    weights = train_weights(context)
    return clusterings.side_by_side(
      [mapped(inputs["features"]["features"], weights, key) for key in keys]
    )

  return Work(finish=finish, row_outputs=("labels",))


STAGE = Stage("cluster", cluster, ("cluster", "seed"))
