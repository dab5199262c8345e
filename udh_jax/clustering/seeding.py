"""Start centroids by k-means++."""

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax import sharding
from udh_jax.clustering.fold import Rows, fold

FARTHEST = jnp.finfo(jnp.float32).max  # Race time of a row that coincides with a centroid.


def k_means_plus_plus(rows: Rows, num_clusters: int, key: jax.Array) -> jax.Array:
  """Draws rows as centroids, each with probability proportional to its squared distance.

  The draw is a race: row i arrives at time E_i / D_i with E_i exponential, and the first wins.
  After a winner at time T what is left of the others, E_i - T D_i, is exponential again and
  independent of the past, so one draw a row serves all centroids. Draws depend on the global row
  index alone: the same rows win however many shards there are.

  Args:
    rows: The rows.
    num_clusters: K.
    key: Random key, the same on every shard.

  Returns:
    Centroids of shape ``[K, d]``, centred and scaled as the rows are read.

  References:
    Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007. The race is
    our own way to draw.
  """
  size, dim = rows.features.shape
  index = sharding.row_indices(size, rows.axis_name)
  dtype = rows.features.dtype
  clocks = jax.vmap(lambda row: jax.random.exponential(jax.random.fold_in(key, row), dtype=dtype))(
    index
  )
  clocks = jnp.where(rows.weights > 0, clocks, jnp.inf)  # [n]

  def draw(clocks, distances):
    """The next centroid, and the clocks of the rows after it was drawn."""
    times = jnp.where(distances > 0, clocks / distances, FARTHEST)
    times = jnp.where(rows.weights > 0, times, jnp.inf)
    local = jnp.argmin(times)
    time = sharding.pmin(times[local], rows.axis_name)
    candidate = jnp.where(times[local] == time, index[local], jnp.iinfo(jnp.int32).max)
    winner = sharding.pmin(candidate, rows.axis_name)
    row = (rows.features[local] - rows.mean) / rows.scale
    centroid = sharding.psum(jnp.where(index[local] == winner, row, 0), rows.axis_name)
    elapsed = jnp.where(time < FARTHEST, time, 0)
    return centroid, jnp.maximum(clocks - elapsed * distances, 0)

  def closest(distances, centroid):
    def add(carry, block, weights, start):
      new = jnp.sum(jnp.square(block - centroid), axis=1)
      old = lax.dynamic_slice(carry, (start,), new.shape)
      return lax.dynamic_update_slice(carry, jnp.minimum(old, new), (start,))

    return fold(rows, add, distances)

  def step(number, carry):
    clocks, distances, centroids = carry
    centroid, clocks = draw(clocks, distances)
    # Every row is equally far from no centroid at all: the first draw is uniform.
    distances = closest(jnp.where(number == 0, jnp.inf, distances), centroid)
    return clocks, distances, centroids.at[number].set(centroid)

  start = sharding.varying((clocks, jnp.ones(size, dtype)), rows.axis_name)
  centroids = jnp.zeros((num_clusters, dim), dtype)
  return lax.fori_loop(0, num_clusters, step, (*start, centroids))[2]
