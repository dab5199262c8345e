"""ITQ on discriminant directions: a linear hash function that knows clusters of the features."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.arrays import Array
from udh_jax.coding.baselines import LinearHash, checked_rows, itq
from udh_jax.errors import require, require_labels, require_number, whole_number
from udh_jax.numerics import matmul, with_fixed_signs
from udh_jax.sharding import mean_of_rows, psum

RIDGE = 1 / 256  # of the total variance, on every direction of the scatter within clusters
TIE = 1e-3  # what the variance within clusters counts among directions that no cluster differs in
LEAST = 0.01  # of the largest ratio: what a direction that no cluster differs in counts


def discriminant_directions(
  features: Array,
  labels: Array,
  *,
  num_clusters: int,
  power: float | jax.Array,
  weights: Array | None = None,
  axis_name: str | None = None,
) -> LinearHash:
  """The directions in which clusters differ most from one another for what they are wide.

  With S_w the scatter of rows of unit length around the centroids of their clusters, the mean over
  all clusterings, and S_b that of the centroids: the solutions of
  S_b v = r (S_w + ridge tr(S_w + S_b) I) v, those of largest r first, v scaled by r^(power / 2).
  Beyond the rank of S_b, at most H (K - 1), r is 0: there those of most variance come first, as
  S_b is taken with `TIE` of S_w.

  Args:
    features: Training features, this device's rows. Array of shape ``[n, d]``.
    labels: Clusters 0..K-1 by H clusterings; -1 where a clustering does not know the row, all of
      which then counts as scatter within. Integer array of shape ``[n, H]``.
    num_clusters: K, at least 1. Static.
    power: How much more a direction counts the better it tells clusters apart, 0 or more: at 0
      distances are Mahalanobis's within clusters; at 1 codes gather whole clusters.
    weights: 0 masks a row (padding, or not for training). Array of shape ``[n]``; None counts all.
    axis_name: Mapped axis over which the rows are sharded; None means one device.

  Returns:
    The mean ``[d]`` and the directions V, one a column, ``[d, d]``; sign((x - mean) V) would be
    codes, `discriminant_itq` turns them first.

  Raises:
    InputError: If a shape is wrong, ``num_clusters`` < 1, a feature is not finite, no row counts
      or, where values are known, ``power`` is negative or a label not in -1..K-1.

  References:
    Fisher, The use of multiple measurements in taxonomic problems, 1936. Clusters in place of
    classes, several clusterings, the ridge and the power are our own.
  """
  features, labels = jnp.asarray(features), jnp.asarray(labels)
  require(
    features.ndim == 2
    and labels.ndim == 2
    and len(labels) == len(features)
    and labels.shape[1] >= 1
    and jnp.issubdtype(labels.dtype, jnp.integer),
    f"discriminant_directions: features have shape {features.shape}, labels are {labels.dtype} of "
    f"shape {labels.shape}; expected [n, d] and integers [n, H] with H of 1 or more.",
  )
  num_clusters = whole_number("discriminant_directions: num_clusters", num_clusters)
  require(
    num_clusters >= 1, f"discriminant_directions: num_clusters is {num_clusters}, expected >= 1."
  )
  require_number("discriminant_directions: power", power, 0)
  require_labels("discriminant_directions", labels, num_clusters)
  features, weights = checked_rows("discriminant_directions", features, weights)
  return _directions(
    features,
    labels,
    weights,
    num_clusters=num_clusters,
    power=power,
    axis_name=axis_name,
  )


def discriminant_itq(
  features: Array,
  directions: LinearHash,
  num_bits: int,
  *,
  key: jax.Array,
  flatness: float | jax.Array = 0.0,
  weights: Array | None = None,
  axis_name: str | None = None,
) -> LinearHash:
  """ITQ on the first of `discriminant_directions`.

  Args:
    features: The features that the directions are of. Array of shape ``[n, d]``.
    directions: From `discriminant_directions`.
    num_bits: Number of bits c, at most d.
    key: Random key of ITQ's rotation, the same on every shard.
    flatness: f in 0..1: the outputs in each direction are divided by their standard deviation to
      the power f, so that codes depend less on the few directions that vary most. 0 leaves them as
      they are, at 1 all vary alike.
    weights: As there.
    axis_name: As there.

  Returns:
    The hash function.

  Raises:
    InputError: If a width is wrong, ``num_bits`` is not in 1..d or, where its value is known,
      ``flatness`` not in 0..1.

  References:
    Gong and Lazebnik, Iterative Quantization, CVPR 2011, for ITQ; the rest is our own.
  """
  features, width = jnp.asarray(features), directions.mean.shape[0]
  require(
    features.ndim == 2 and features.shape[1] == width,
    f"discriminant_itq: features have shape {features.shape}, the directions expect [n, {width}].",
  )
  num_bits = whole_number("discriminant_itq: num_bits", num_bits)
  require(
    1 <= num_bits <= width,
    f"discriminant_itq: {num_bits} bits from {width} features; expected 1 to {width}.",
  )
  require_number("discriminant_itq: flatness", flatness, 0, 1)
  features, counted = checked_rows("discriminant_itq", features, weights)
  centred, first = features - directions.mean, directions.projection[:, :num_bits]
  variance, _ = mean_of_rows(matmul(centred, first) ** 2, counted, axis_name)
  first = first * jnp.where(variance > 0, variance, 1) ** (-flatness / 2)
  found = itq(matmul(centred, first), num_bits, key=key, weights=weights, axis_name=axis_name)
  return LinearHash(directions.mean, matmul(first, found.projection))


@functools.partial(jax.jit, static_argnames=("num_clusters", "axis_name"))
def _directions(features, labels, weights, *, num_clusters, power, axis_name):
  mean, count = mean_of_rows(features, weights, axis_name)
  rows = features - mean
  rows = rows / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
  rows = rows * weights[:, None]
  rows = rows - psum(rows.sum(axis=0), axis_name) / count * weights[:, None]
  total = psum(matmul(rows.T, rows), axis_name) / count

  def between(scatter, clusters):
    known = jnp.where(clusters >= 0, weights, 0)
    sums, sizes = psum(
      (
        jax.ops.segment_sum(rows * known[:, None], clusters, num_clusters),
        jax.ops.segment_sum(known, clusters, num_clusters),
      ),
      axis_name,
    )
    centroids = sums / jnp.sqrt(jnp.maximum(sizes, 1))[:, None]  # times the root of the size
    return scatter + matmul(centroids.T, centroids) / count, None

  between_clusters, _ = lax.scan(between, jnp.zeros_like(total), labels.T)
  between_clusters = between_clusters / labels.shape[1]
  within = total - between_clusters
  ridge = RIDGE * jnp.trace(total) + 1e-12  # all rows alike have no scatter at all
  root = jnp.linalg.cholesky(within + ridge * jnp.eye(len(total), dtype=total.dtype))
  solve = functools.partial(jax.scipy.linalg.solve_triangular, root, lower=True)
  differ, vary = (solve(solve(scatter).T) for scatter in (between_clusters, within))
  vectors = jnp.linalg.eigh(differ + TIE * vary)[1][:, ::-1]
  ratios = (vectors * matmul(differ, vectors)).sum(axis=0)
  directions = with_fixed_signs(solve(vectors, trans=1))
  most = jnp.max(ratios)
  scale = jnp.where(most > 0, jnp.maximum(ratios, LEAST * most), 1.0) ** (power / 2)
  return LinearHash(mean, directions * scale)
