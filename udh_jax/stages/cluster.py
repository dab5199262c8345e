"""Features in, pseudo labels out: equal-size clustering."""

import functools

import jax
from jax.sharding import PartitionSpec

from udh_jax.clustering.equal_size_kmeans import Clustering, equal_size_kmeans
from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.rows import train_weights

FIELDS = ("cluster", "seed")


def cluster(context: Context, config, inputs) -> Work:
  """Clusters the training images. Outputs: the fields of `Clustering`; label -1 for other images.

  References:
    UDH-ECC, stage 1: "the proposed equivalent constraint clustering algorithm".
  """
  settings = config.cluster
  available = len(context.dataset.splits.train)
  require(
    available >= settings.num_clusters,
    f"cluster.num_clusters is {settings.num_clusters}, but there are {available} training images; "
    "lower it or give more images.",
  )
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

  def run(features, weights, key):
    return function(features, weights=weights, key=key)

  mapped = jax.jit(
    jax.shard_map(
      run,
      mesh=context.mesh,
      in_specs=(rows, rows, whole),
      out_specs=Clustering(**{f: rows if f == "labels" else whole for f in Clustering._fields}),
    )
  )

  def finish(state):
    del state
    key = jax.random.key(config.seed)
    result = mapped(inputs["features"]["features"], train_weights(context), key)
    return result._asdict()

  return Work(finish=finish, row_outputs=("labels",))
