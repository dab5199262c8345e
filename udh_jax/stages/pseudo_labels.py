"""Features in, pseudo labels out, with how far each image is from its class: k-means."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from ml_collections import ConfigDict

from udh_jax.clustering.kmeans import kmeans, own_distances
from udh_jax.clustering.members import Clustering, clustering_specs
from udh_jax.errors import require
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.map_rows import train_weights


@functools.partial(jax.jit, static_argnames="rank")
def kth_smallest(values: jax.Array, weights: jax.Array, *, rank: int) -> jax.Array:
  """The value of place ``rank``, from 1 on, among those whose weight is not 0, in each column.

  Args:
    values: Array of shape ``[n, H]``.
    weights: Array of shape ``[n]``.
    rank: At most the number of weights above 0.

  Returns:
    Array of shape ``[H]``.
  """
  return jnp.sort(jnp.where(weights[:, None] > 0, values, jnp.inf), axis=0)[rank - 1]


def confident_count(num_images: int, quantile: float, num_clusters: int) -> int:
  """How many images the threshold leaves confident.

  Args:
    num_images: That are clustered.
    quantile: Part of them that is nearest to the own centroid.
    num_clusters: K.

  Returns:
    Their number, rounded up.

  Raises:
    InputError: If ``quantile`` is not in (0, 1], or fewer than K images are left.
  """
  require(
    0 < quantile <= 1,
    f"cluster.threshold_quantile is {quantile}; it has to be above 0, which leaves no confident "
    "image, and at most 1, which leaves all.",
  )
  count = math.ceil(quantile * num_images - 1e-6)
  require(
    count >= num_clusters,
    f"cluster.threshold_quantile {quantile} leaves {count} of {num_images} images confident, fewer "
    f"than the {num_clusters} clusters; raise it or lower cluster.num_clusters.",
  )
  return count


def pseudo_labels(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Clusters the training images, and finds the distance within which images are confident.

  Outputs, for H clusterings from other starts: ``labels`` int32 ``[rows, H]``, -1 for images that
  are not for training; ``distances`` ``[rows, H]`` to the own centroid; ``threshold`` ``[H]``, the
  distance that the given part of the training images does not exceed; and the other fields of
  `Clustering`, ``[H, ...]``.

  References:
    PSCH: k-means and a distance threshold are the paper's; a quantile for a threshold, and that
    there may be several clusterings, are our own.
  """
  settings = config.cluster
  first = jax.random.key(config.seed)
  keys = [first, *(jax.random.fold_in(first, h) for h in range(1, settings.num_clusterings))]
  function = functools.partial(
    kmeans,
    num_clusters=settings.num_clusters,
    num_restarts=settings.num_restarts,
    max_iterations=settings.max_iterations,
    axis_name=mesh_lib.DATA_AXIS,
  )
  return clustered(context, config, inputs, function, keys)


def clustered(
  context: Context,
  config: ConfigDict,
  inputs: Inputs,
  function: Callable[..., Clustering],
  keys: Sequence[jax.Array],
) -> Work:
  """Work that clusters the training images by ``function``, once for each key.

  Args:
    context: Devices and images.
    config: ``cluster`` is read.
    inputs: ``features``.
    function: ``(features, *, weights, key) -> Clustering``, over `mesh_lib.DATA_AXIS`.
    keys: Random keys.

  Returns:
    Work with the outputs of `pseudo_labels`.
  """
  settings = config.cluster
  num_images = len(context.dataset.splits.train)
  rank = confident_count(num_images, settings.threshold_quantile, settings.num_clusters)
  rows, whole = PartitionSpec(mesh_lib.DATA_AXIS), PartitionSpec()

  def one(features, weights, key):
    found = function(features, weights=weights, key=key)
    distances = own_distances(features, found.labels, found.centroids, axis_name=mesh_lib.DATA_AXIS)
    return found, distances

  mapped = jax.jit(
    jax.shard_map(
      one,
      mesh=context.mesh,
      in_specs=(rows, rows, whole),
      out_specs=(clustering_specs(rows, whole), rows),
    )
  )

  def finish(state):
    del state
    weights = train_weights(context)
    pairs = [mapped(inputs["features"]["features"], weights, key) for key in keys]
    found, distances = zip(*pairs, strict=True)
    distances = jnp.stack(distances, axis=1)
    return {
      **clusterings.side_by_side(found),
      "distances": distances,
      "threshold": kth_smallest(distances, weights, rank=rank),
    }

  return Work(finish=finish, row_outputs=("labels", "distances"))


@jax.jit
def confident_labels(clustering: Mapping[str, jax.Array]) -> jax.Array:
  """Pseudo labels of confident images, -1 for the others.

  Args:
    clustering: Outputs of `pseudo_labels` or of `udh_jax.stages.cluster`.

  Returns:
    int32 array of shape ``[rows, H]``.
  """
  confident = clustering["distances"] <= clustering["threshold"]
  return jnp.where(confident, clustering["labels"], -1)


STAGE = Stage("pseudo_labels", pseudo_labels, ("cluster", "seed"))
