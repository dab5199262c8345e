"""Features and views in, clusterings of several sizes out: what codes are made from and held to."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from udh_jax.clustering.kmeans import kmeans
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.features import centred_rows
from udh_jax.stages.map_rows import train_weights
from udh_jax.stages.views import kept_view

# Clusters and clusterings: of the features, for the stage `discriminant`, from the finest on; and
# of the view that nothing is trained on, for `agreements`.
MADE_FROM = ((100, 3), (40, 5), (20, 5))
HELD_TO = ((5, 3), (10, 3), (20, 3), (30, 3))
NEAR_TO = (100, 3)  # finer ones of that view, for `nearest_agreements`
_MEMBERS = 4  # at least so many training images a cluster
_ITERATIONS = 30


def sizes(num_train: int, wanted: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
  """The numbers of clusters that a collection bears, with how many clusterings there are of each.

  Args:
    num_train: Training images.
    wanted: `MADE_FROM` or `HELD_TO`.
  """
  return tuple((max(1, min(k, num_train // _MEMBERS)), times) for k, times in wanted)


@functools.cache
def _clustering(mesh: Mesh, num_clusters: int, everywhere: bool) -> Callable[..., jax.Array]:
  """K-means of the rows that count; the others have the label -1, or the nearest centroid's."""

  def one(features, weights, key):
    options = {"key": key, "axis_name": mesh_lib.DATA_AXIS}
    found = kmeans(features, num_clusters, weights=weights, max_iterations=_ITERATIONS, **options)
    if everywhere:  # one more update, from these centroids, gives every row its nearest
      found = kmeans(features, num_clusters, init=found.centroids, max_iterations=1, **options)
    return found.labels

  return mesh_lib.on_rows(mesh, one, rows=2, whole=1, to_rows=True)


def partitions(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Clusters the features, and the view that nothing is trained on, by k-means.

  Outputs: ``made_from`` and ``held_to``: int32 ``[rows, H]`` for each entry of `MADE_FROM` and
  `HELD_TO`, by its number as a string; and ``near_to``, int32 ``[rows, H]``, of `NEAR_TO`. Clusters
  are found among the training images; those of the view are given to all images, those of
  ``made_from`` are -1 elsewhere.

  References:
    Our own.
  """
  num_train = len(context.dataset.splits.train)

  def finish(state):
    del state
    weights = train_weights(context)
    keys = iter(jax.random.split(jax.random.key(config.seed), 64))

    def several(features, wanted, everywhere):
      found = {}
      for number, (k, times) in enumerate(sizes(num_train, wanted)):
        cluster = _clustering(context.mesh, k, everywhere)
        labels = [cluster(features, weights, next(keys)) for _ in range(times)]
        found[str(number)] = jnp.stack(labels, axis=1)
      return found

    view, _, _ = centred_rows(context, jax.jit(kept_view)(inputs["views"]["views"]))
    return {
      "made_from": several(inputs["features"]["features"], MADE_FROM, False),
      "held_to": several(view, HELD_TO, True),
      "near_to": several(view, (NEAR_TO,), True)["0"],
    }

  return Work(finish=finish, row_outputs=("made_from", "held_to", "near_to"))


# Version 2: finer clusters of the view, too.
STAGE = Stage("partitions", partitions, ("seed",), version=2)
