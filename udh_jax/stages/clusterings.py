"""Several clusterings side by side, and one head of K-way predictions for each."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.clustering.members import Clustering

FIELDS = ("cluster.num_clusters", "cluster.num_clusterings")


@jax.jit
def side_by_side(found: Sequence[Clustering]) -> dict[str, jax.Array]:
  """Clusterings of the same rows: ``labels`` int32 ``[rows, H]``, the other fields ``[H, ...]``."""
  return {
    name: jnp.stack(values, axis=1 if name == "labels" else 0)
    for name, values in zip(Clustering._fields, zip(*found, strict=True), strict=True)
  }


def num_logits(config: ConfigDict) -> int:
  """Width of a layer that predicts all clusterings."""
  return config.cluster.num_clusterings * config.cluster.num_clusters


def heads(logits: jax.Array, config: ConfigDict) -> jax.Array:
  """Logits by clustering: ``[b, H * K]`` to ``[b, H, K]``."""
  return logits.reshape(-1, config.cluster.num_clusterings, config.cluster.num_clusters)


def as_rows(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """Puts the heads of an image one below the other: ``[b, H, ...]`` to ``[b * H, ...]`` each."""
  return tuple(array.reshape(-1, *array.shape[2:]) for array in arrays)


def confident_rows(
  logits: jax.Array, labels: jax.Array, weights: jax.Array, config: ConfigDict
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Logits, labels and weights of `as_rows`; a label of -1, which is not confident, weighs 0.

  Args:
    logits: Array of shape ``[b, H * K]``.
    labels: Integer array of shape ``[b, H]``.
    weights: Array of shape ``[b]``.
    config: See `heads`.
  """
  logits, labels = as_rows(heads(logits, config), labels)
  return logits, labels, row_weights(weights, config) * (labels >= 0)


def row_weights(weights: jax.Array, config: ConfigDict) -> jax.Array:
  """The weight of each image for each of its `as_rows`: ``[b]`` to ``[b * H]``."""
  return jnp.repeat(weights, config.cluster.num_clusterings)
