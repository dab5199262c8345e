"""Features in, pseudo labels out: equal-size clustering."""

import functools

import jax
from ml_collections import ConfigDict

from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.pseudo_labels import clustered


def cluster(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Clusters the training images under a constraint on sizes, several times from other starts.

  Outputs: those of `udh_jax.stages.pseudo_labels.pseudo_labels`.

  References:
    UDH-ECC, stage 1: "the proposed equivalent constraint clustering algorithm". That there may be
    several is our own choice, after the heads of SeLa (Asano et al., ICLR 2020); so is that images
    far from their centroid may be left out (``cluster.threshold_quantile``).
  """
  settings = config.cluster
  function = functools.partial(
    equal_size_kmeans,
    num_clusters=settings.num_clusters,
    num_restarts=settings.num_restarts,
    max_iterations=settings.max_iterations,
    min_size=settings.min_size or None,
    max_size=settings.max_size or None,
    axis_name=mesh_lib.DATA_AXIS,
  )
  keys = jax.random.split(jax.random.key(config.seed), settings.num_clusterings)
  return clustered(context, config, inputs, function, list(keys))


STAGE = Stage("cluster", cluster, ("cluster", "seed"))
