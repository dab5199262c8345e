"""Neighbours by what a network says of the query before signs are taken, against packed codes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax.arrays import Array
from udh_jax.coding.binary import require_packed
from udh_jax.errors import is_traced, require, whole_number

_CHUNK = 2**22  # similarities held at once
_FEWEST = 256  # items of a chunk


class AsymmetricNeighbours(NamedTuple):
  """The most similar database items of each query, most similar first, ties by database index.

  Attributes:
    similarities: See `asymmetric_search`. float32 array of shape ``[q, k]``.
    indices: Positions in the database. int32 array of shape ``[q, k]``.
  """

  similarities: Array
  indices: Array


def asymmetric_search(
  outputs: Array,
  database: Array,
  k: int,
  *,
  valid: Array | None = None,
  axis_name: str | None = None,
) -> AsymmetricNeighbours:
  """The k most similar items of each query, which keeps its outputs where items have their signs.

  The similarity of outputs u and a code b in {-1, 1}^c is u . b. Of outputs that are signs
  themselves it is c less twice the Hamming distance; of others a bit counts the more the farther
  its output is from 0, so that items at equal distances differ. Items are read some at a time: at
  most 2^22 similarities (or those of 256 items) are held at once.

  Args:
    outputs: Of a hash function before signs are taken, finite; their scale does not matter. Float
      array of shape ``[q, c]``. The same on every shard.
    database: This device's packed codes of c bits. uint8 array of shape ``[n, ceil(c / 8)]``.
    k: Number of neighbours, 1 to the size of the whole database.
    valid: False masks a row of the database (padding). bool array of shape ``[n]``; None means all
      are valid. Under a trace it is the caller's duty that at least k are; other places hold -inf.
    axis_name: Mapped axis over which the database is sharded; None means one device. Indices then
      count through the shards in order: shard * n + row.

  Returns:
    Similarities and indices, an `AsymmetricNeighbours`.

  Raises:
    InputError: If a dtype or shape is wrong, the widths differ, an output is not finite, or k is
      larger than the database.

  References:
    Dong, Charikar and Li, Asymmetric distance estimation with sketches, SIGIR 2008; Gordo et al.,
    Asymmetric distances for binary embeddings, TPAMI 2014. The inner product is the simplest such.
  """
  outputs = outputs if isinstance(outputs, jax.Array) else np.asarray(outputs)
  database = database if isinstance(database, jax.Array) else np.asarray(database)
  require_packed("asymmetric_search: database", database)
  require(
    outputs.ndim == 2 and jnp.issubdtype(outputs.dtype, jnp.floating),
    f"asymmetric_search: outputs are {outputs.dtype} of shape {outputs.shape}, expected floats "
    "[q, bits]; codes are sought by `search`.",
  )
  require(
    database.shape[1] == -(-outputs.shape[1] // 8),
    f"asymmetric_search: outputs have shape {outputs.shape} and codes {database.shape}; "
    f"{outputs.shape[1]} bits need [n, {-(-outputs.shape[1] // 8)}].",
  )
  k = whole_number("asymmetric_search: k", k)
  shards = 1 if axis_name is None else lax.axis_size(axis_name)
  num_items = shards * len(database)
  if valid is not None and not is_traced(valid) and axis_name is None:
    num_items = int(np.asarray(valid).sum())
  require(
    1 <= k <= num_items,
    f"asymmetric_search: k is {k}, expected 1 to {num_items}, the number of database items.",
  )
  if not is_traced(outputs):
    require(
      bool(np.isfinite(np.asarray(outputs)).all()),
      "asymmetric_search: an output is not finite; look at the network or the pictures.",
    )
  return _search(jnp.asarray(outputs, jnp.float32), database, valid, k=k, axis_name=axis_name)


def most_similar_first(outputs: np.ndarray, codes: np.ndarray) -> np.ndarray:
  """The order of a few items by their similarity to one query, ties in the order given.

  Args:
    outputs: Of the query. Float array of shape ``[c]``.
    codes: uint8 array of shape ``[m, ceil(c / 8)]``.

  Returns:
    Places in ``codes``. int64 array of shape ``[m]``.
  """
  padded = np.zeros((1, 8 * codes.shape[1]), np.float32)
  padded[0, : len(outputs)] = outputs
  similarities = np.zeros(len(codes), np.float32)
  for table, column in zip(_tables(padded, np), codes.T, strict=True):
    similarities += table[0, column]
  return np.argsort(-similarities, kind="stable")


@functools.partial(jax.jit, static_argnames=("k", "axis_name"))
def _search(outputs, database, valid, *, k, axis_name):
  num_queries, num_bits = outputs.shape
  num_items, width = database.shape
  rows = min(num_items, max(_FEWEST, _CHUNK // max(num_queries, 1)))
  chunks = -(-num_items // rows)
  known = jnp.ones(num_items, bool) if valid is None else jnp.asarray(valid)
  padding = chunks * rows - num_items
  codes = jnp.pad(database, ((0, padding), (0, 0))).reshape(chunks, rows, width)
  known = jnp.pad(known, (0, padding)).reshape(chunks, rows)
  padded = jnp.pad(outputs, ((0, 0), (0, 8 * width - num_bits)))  # padding bits count nothing
  tables = _tables(padded, jnp)

  def best(similarities, indices):
    """Of equal ones `lax.top_k` takes the first, whose index is the smallest."""
    values, places = lax.top_k(similarities, k)
    return values, jnp.take_along_axis(indices, places, axis=1)

  def similarity(codes):
    """Sums of what bytes say, in one order for all items: equal codes are equally similar."""
    first = tables[0][:, codes[:, 0]]
    rest = tables[1:], codes.T[1:]
    return lax.scan(lambda sums, at: (sums + at[0][:, at[1]], None), first, rest)[0]

  def take(found, chunk):
    codes, known, start = chunk
    similarities = jnp.where(known, similarity(codes), -jnp.inf)
    indices = jnp.broadcast_to(start + jnp.arange(rows), similarities.shape)
    both = zip(found, (similarities, indices), strict=True)
    return best(*(jnp.concatenate(parts, axis=1) for parts in both)), None

  # Typed inside `jax.shard_map` as differing between devices, as what takes its place.
  nothing = jnp.where(database.ravel()[:1] < 0, 0.0, -jnp.inf)
  none = (
    jnp.broadcast_to(nothing, (num_queries, k)),
    jnp.where(nothing < 0, num_items, 0) + jnp.zeros((num_queries, k), jnp.int32),
  )
  (values, indices), _ = lax.scan(take, none, (codes, known, rows * jnp.arange(chunks)))
  if axis_name is not None:
    indices = indices + lax.axis_index(axis_name) * num_items
    gathered = (lax.all_gather(part, axis_name, axis=1, tiled=True) for part in (values, indices))
    values, indices = best(*gathered)
  return AsymmetricNeighbours(values, indices.astype(jnp.int32))


def _tables(outputs: Any, np: Any) -> Any:
  """What each byte of an item adds to the similarity: ``[q, 8 * bytes]`` to ``[bytes, q, 256]``.

  ``np`` is NumPy or JAX's.
  """
  bits = (np.arange(256)[:, None] >> np.arange(7, -1, -1)) & 1
  by_byte = outputs.reshape(len(outputs), outputs.shape[1] // 8, 8).swapaxes(0, 1)[:, :, None]
  return np.where(bits, by_byte, -by_byte).sum(axis=3)
