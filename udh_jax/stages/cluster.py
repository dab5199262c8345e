"""Features in, pseudo labels out: equal-size clustering."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from udh_jax.clustering.equal_size_kmeans import Clustering, equal_size_kmeans
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Work
from udh_jax.stages.rows import train_weights

FIELDS = ("cluster", "seed")


def margins(features, labels, centroids):
  """How much closer each row is to its own centroid than to the next one.

  Args:
    features: Array of shape ``[n, d]``.
    labels: Clusters. int32 array of shape ``[n]``.
    centroids: Array of shape ``[K, d]``.

  Returns:
    Squared distance to the nearest other centroid minus that to the own one, ``[n]``; negative
    where equal sizes put a row away from its nearest centroid, infinite if there is one centroid.

  References:
    Our own measure of how far a pseudo label can be trusted.
  """

  def margin(row):
    feature, label = row
    squared = jnp.sum(jnp.square(feature - centroids), axis=1)  # [K]
    others = jnp.where(jnp.arange(len(centroids)) == label, jnp.inf, squared)
    return others.min() - squared[label]

  return jax.lax.map(margin, (features, labels), batch_size=256)


def cluster(context: Context, config, inputs) -> Work:
  """Clusters the training images.

  Outputs: the fields of `Clustering`, label -1 for images that are not for training, and ``margin``
  ``[rows]``, see `margins`.

  References:
    UDH-ECC, stage 1: "the proposed equivalent constraint clustering algorithm".
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

  by_row = ("labels", "margin")

  def run(features, weights, key):
    result = function(features, weights=weights, key=key)
    return result._asdict() | {"margin": margins(features, result.labels, result.centroids)}

  mapped = jax.jit(
    jax.shard_map(
      run,
      mesh=context.mesh,
      in_specs=(rows, rows, whole),
      out_specs={
        name: rows if name in by_row else whole for name in (*Clustering._fields, "margin")
      },
    )
  )

  def finish(state):
    del state
    key = jax.random.key(config.seed)
    return mapped(inputs["features"]["features"], train_weights(context), key)

  return Work(finish=finish, row_outputs=by_row)
