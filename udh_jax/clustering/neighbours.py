"""The graph of nearest neighbours, and an embedding in which rows that paths join lie near."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.arrays import Array
from udh_jax.errors import (
  require,
  require_automatic,
  require_finite,
  require_key,
  require_labels,
  whole_number,
)
from udh_jax.numerics import at_least_float32, matmul
from udh_jax.sharding import psum, row_indices, varying

NONE = -1  # no neighbour
_QUERIES, _OTHERS = 1024, 8192  # rows of a block of similarities
# Of the filtered subspace iteration. A filter of this degree makes the largest eigenvalue at most
# T_4(3) = 577 times as heavy as what it damps, so that float32 holds both.
_ROUNDS, _DEGREE = 24, 4
_DEPENDENT = 1e-6  # columns of less than this of the largest square length are no new direction
_LAST = -2.0  # below any eigenvalue


def nearest_neighbours(
  features: Array,
  num_neighbours: int,
  *,
  weights: Array | None = None,
  axis_name: str | None = None,
) -> jax.Array:
  """The rows of largest cosine to each row, itself left out.

  Devices pass their rows around, so that none holds all; similarities exist in blocks of 1,024 x
  8,192.

  Args:
    features: This device's rows. Array of shape ``[n, d]``; a row of zeros has a cosine of 0.
    num_neighbours: k, at least 1. Static.
    weights: 0 masks a row: it has no neighbours and is nobody's. Array of shape ``[n]``; None
      counts all.
    axis_name: Mapped axis over which the rows are sharded; None means one device.

  Returns:
    Global indices of the neighbours, the nearest first, ties by index; `NONE` where there are fewer
    than k other rows. int32 array of shape ``[n, k]``.

  Raises:
    InputError: If a shape is wrong, k is below 1 or a feature is not finite.
  """
  require_automatic("nearest_neighbours", features, weights)
  features = jnp.asarray(features)
  require(
    features.ndim == 2 and features.shape[1] >= 1,
    f"nearest_neighbours: features have shape {features.shape}, expected [n, d] with d of 1 or "
    "more.",
  )
  num_neighbours = whole_number("nearest_neighbours: num_neighbours", num_neighbours)
  require(
    num_neighbours >= 1, f"nearest_neighbours: num_neighbours is {num_neighbours}, expected >= 1."
  )
  weights = jnp.ones(len(features), bool) if weights is None else jnp.asarray(weights) > 0
  require(
    weights.shape == features.shape[:1],
    f"nearest_neighbours: weights have shape {weights.shape}, expected [{len(features)}].",
  )
  features = jnp.where(weights[:, None], features, 0)  # masked rows may hold anything
  require_finite("nearest_neighbours: features", features)
  return _neighbours(
    at_least_float32(features), weights, num_neighbours=num_neighbours, axis_name=axis_name
  )


def _unit(rows):
  """Rows scaled to length 1; a row of zeros stays one."""
  # Scaled by a power of two, which rounds nothing, squares neither overflow nor vanish.
  _, exponents = jnp.frexp(jnp.max(jnp.abs(rows), axis=1, keepdims=True))
  rows = jnp.ldexp(rows, -exponents)
  lengths = jnp.linalg.norm(rows, axis=1, keepdims=True)
  return jnp.where(lengths > 0, rows / jnp.where(lengths > 0, lengths, 1), 0)


def _nearer(first, second):
  """Of two lists of k cosines and indices the k nearest; by index where rows are equally near."""
  cosines, indices = (jnp.concatenate(pair, axis=1) for pair in zip(first, second, strict=True))
  distances, indices = lax.sort((-cosines, indices), num_keys=2)
  return tuple(part[:, : first[0].shape[1]] for part in (-distances, indices))


@functools.partial(jax.jit, static_argnames=("num_neighbours", "axis_name"))
def _neighbours(features, counts, *, num_neighbours, axis_name):
  size = len(features)
  features = _unit(features)
  own = row_indices(size, axis_name)
  queries, others = min(_QUERIES, max(1, size)), min(_OTHERS, max(1, size))

  def blocks(rows, block, fill):
    padded = jnp.pad(rows, ((0, -size % block), *((0, 0),) * (rows.ndim - 1)), constant_values=fill)
    return padded.reshape(-1, block, *rows.shape[1:])

  asked = blocks(features, queries, 0), blocks(own, queries, NONE)
  start = (
    jnp.full((*asked[1].shape, num_neighbours), -jnp.inf, features.dtype),
    jnp.full((*asked[1].shape, num_neighbours), NONE, jnp.int32),
  )

  def visit(found, visitors):
    """The nearest so far, and those among the rows that a device has sent."""
    rows, indices, known = visitors
    parts = blocks(rows, others, 0), blocks(indices, others, NONE), blocks(known, others, False)

    def of_queries(arguments):
      (rows, index), before = arguments
      empty = jnp.full_like(before[0], -jnp.inf), jnp.full_like(before[1], NONE)

      def among(best, part):
        part_rows, part_index, part_known = part
        cosines = matmul(rows, part_rows.T)
        allowed = part_known[None] & (part_index[None] != index[:, None])
        cosines = jnp.where(allowed, cosines, -jnp.inf)
        values, places = lax.top_k(jnp.concatenate([best[0], cosines], axis=1), num_neighbours)
        everyone = jnp.concatenate([best[1], jnp.broadcast_to(part_index, cosines.shape)], axis=1)
        return (values, jnp.take_along_axis(everyone, places, axis=1)), None

      found = lax.scan(among, varying(empty, axis_name), parts)[0]
      return found if axis_name is None else _nearer(before, found)

    return lax.map(of_queries, (asked, found))

  visitors = features, own, counts
  if axis_name is None:
    found = visit(start, visitors)
  else:
    devices = lax.axis_size(axis_name)
    onwards = [(device, (device + 1) % devices) for device in range(devices)]

    def turn(_, carry):
      found, visitors = carry
      found = visit(found, visitors)
      return found, lax.ppermute(visitors, axis_name, onwards)

    found, _ = lax.fori_loop(0, devices, turn, varying((start, visitors), axis_name))
  cosines, indices = (part.reshape(-1, num_neighbours)[:size] for part in found)
  return jnp.where((cosines > -jnp.inf) & counts[:, None], indices, NONE)


def neighbour_embedding(
  neighbours: Array, num_dims: int, *, key: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Places rows so that those joined by many paths of neighbours lie near.

  The leading eigenvectors of D^-1/2 (A + A^T) D^-1/2, rows scaled to unit length, where A_ij is 1
  if j is a neighbour of i and D holds the sums of the rows of A + A^T. They are found by subspace
  iteration on twice as many random columns, each round filtered by a Chebyshev polynomial that
  damps what lies below the smallest eigenvalue so far.

  Args:
    neighbours: From `nearest_neighbours`, this device's rows. Integer array of shape ``[n, k]``.
    num_dims: c, at least 1. Static.
    key: Random key, the same on every shard.
    axis_name: Mapped axis over which the rows are sharded; None means one device.

  Returns:
    float32 array of shape ``[n, c]``; rows without any neighbour are 0. Signs and, among equal
    eigenvalues, the axes are arbitrary; so are those of negative eigenvalues, which are there where
    c is near n alone.

  Raises:
    InputError: If a shape is wrong, ``num_dims`` is below 1, the key is none or, where values are
      known, an index is outside.

  References:
    Ng, Jordan and Weiss, On Spectral Clustering, NIPS 2001 (the embedding); Zhou, Saad, Tiago and
    Chelikowsky, Self-consistent-field calculations using Chebyshev-filtered subspace iteration,
    Journal of Computational Physics 2006 (the filter).
  """
  neighbours = jnp.asarray(neighbours)
  require(
    neighbours.ndim == 2 and jnp.issubdtype(neighbours.dtype, jnp.integer),
    f"neighbour_embedding: neighbours are {neighbours.dtype} of shape {neighbours.shape}, expected "
    "integers [n, k].",
  )
  num_dims = whole_number("neighbour_embedding: num_dims", num_dims)
  require(num_dims >= 1, f"neighbour_embedding: num_dims is {num_dims}, expected >= 1.")
  require_key("neighbour_embedding", key)
  if axis_name is None:  # else indices are global, and how many there are is not known here
    require_labels("neighbour_embedding", neighbours, len(neighbours), what="neighbours")
  return _embedding(neighbours.astype(jnp.int32), key, num_dims=num_dims, axis_name=axis_name)


@functools.partial(jax.jit, static_argnames=("num_dims", "axis_name"))
def _embedding(neighbours, key, *, num_dims, axis_name):
  size = len(neighbours)
  index = row_indices(size, axis_name)
  devices = 1 if axis_name is None else lax.axis_size(axis_name)
  everyone = size * devices

  def of_all(rows):
    return rows if axis_name is None else lax.all_gather(rows, axis_name, tiled=True)

  def of_own(rows):
    if axis_name is None:
      return rows
    return lax.psum_scatter(rows, axis_name, scatter_dimension=0, tiled=True)

  def both_ways(columns):
    """(A + A^T) X of this device's rows, one neighbour after the other."""
    gathered = of_all(columns)

    def add(carry, places):
      towards, back = carry
      there = (places != NONE)[:, None]  # where there is no neighbour 0 is added, to any row
      towards += jnp.where(there, gathered[places], 0)
      return (towards, back.at[places].add(jnp.where(there, columns, 0))), None

    nothing = varying(jnp.zeros((everyone, columns.shape[1]), columns.dtype), axis_name)
    start = varying(jnp.zeros_like(columns), axis_name), nothing
    (towards, back), _ = lax.scan(add, start, neighbours.T)
    return towards + of_own(back)

  degrees = both_ways(jnp.ones((size, 1), jnp.float32))
  root = jnp.where(degrees > 0, lax.rsqrt(jnp.maximum(degrees, 1)), 0)

  def product(columns):
    return root * both_ways(root * columns)

  def square_lengths(columns):
    return psum(jnp.sum(jnp.square(columns), axis=0), axis_name)

  def orthonormal(columns):
    """Columns of the same space; those that are no new direction become 0."""
    for _ in range(2):  # the second time makes up for the rounding of the first
      lengths = jnp.sqrt(square_lengths(columns))
      columns /= jnp.where(lengths > 0, lengths, 1)
      gram = psum(matmul(columns.T, columns), axis_name)
      values, vectors = jnp.linalg.eigh(gram)
      kept = values > _DEPENDENT * values[-1]
      scale = jnp.where(kept, lax.rsqrt(jnp.where(kept, values, 1)), 0)
      columns = matmul(columns, vectors * scale)
    return columns

  def whole(columns, salt):
    """Orthonormal columns; in place of those that are no new direction there are random ones."""
    columns = orthonormal(columns)
    missing = square_lengths(columns) == 0
    return orthonormal(jnp.where(missing, random_columns(salt), columns))

  def ritz(columns):
    """Eigenvectors within the space, the largest eigenvalue first, and the smallest value."""
    within = psum(matmul(columns.T, product(columns)), axis_name)
    # More columns than rows leave some 0, which come after those of negative eigenvalues.
    within += jnp.diag(jnp.where(square_lengths(columns) == 0, _LAST, 0))
    values, vectors = jnp.linalg.eigh(within)
    return matmul(columns, vectors[:, ::-1]), values[0]

  def filtered(columns, bound):
    centre, half = (bound - 1) / 2, (bound + 1) / 2  # of what is damped: from -1 to the bound

    def shifted(x):
      return (product(x) - centre * x) / half

    def term(_, pair):
      before, last = pair
      return last, 2 * shifted(last) - before

    return lax.fori_loop(1, _DEGREE, term, (columns, shifted(columns)))[1]

  def improve(number, carry):
    columns, smallest = carry
    return ritz(whole(filtered(columns, jnp.clip(smallest, 0, 0.99)), number + 1))

  def random_columns(salt):
    def draw(row):
      own = jax.random.fold_in(jax.random.fold_in(key, salt), row)
      return jax.random.normal(own, (2 * num_dims,), jnp.float32)

    return jnp.where(degrees > 0, jax.vmap(draw)(index), 0)

  columns, _ = lax.fori_loop(0, _ROUNDS, improve, ritz(whole(random_columns(0), 0)))
  columns = columns[:, :num_dims]
  return _unit(columns)
