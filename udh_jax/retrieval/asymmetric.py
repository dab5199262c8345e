"""Neighbours by a network's real-valued outputs for the query, against packed codes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax.arrays import Array
from udh_jax.coding.binary import require_packed
from udh_jax.cpu import choice
from udh_jax.errors import require, require_finite
from udh_jax.retrieval.hamming import NO_NEIGHBOUR, checked_request

_CHUNK = 2**22  # similarities, or numbers of the queries' tables, held at once
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
  its output is from 0, so that items at equal distances differ, unless their codes are equal.
  Queries and items are taken some at a time: besides the answer, about 2^22 similarities are held
  at once (or those of one query with 256 or k items), and as many numbers of the queries' tables.
  On a CPU with AVX2, outside a trace, `udh_jax.cpu.similarity` gives the same, and
  faster the fewer neighbours are asked for. JAX counts outputs below 1.2e-38 as 0.

  Args:
    outputs: Of a hash function, before binarisation, finite in float32; their scale does not
      change the order. Float array of shape ``[q, c]``. The same on every shard.
    database: This device's packed codes of c bits. uint8 array of shape ``[n, ceil(c / 8)]``.
    k: Number of neighbours, 1 to the size of the whole database.
    valid: False masks a row of the database (padding). bool array of shape ``[n]``; None means all
      are valid. Under a trace it is the caller's duty that at least k are; a place that no valid
      item fills has index -1 (`NO_NEIGHBOUR`) and similarity -inf.
    axis_name: Mapped axis over which the database is sharded; None means one device. Indices then
      count through the shards in order: shard * n + row. What is found is the same on every shard,
      which `jax.shard_map` cannot see by itself: map with ``check_vma=False``.

  Returns:
    Similarities and indices, an `AsymmetricNeighbours`.

  Raises:
    InputError: If a dtype or shape is wrong, the widths differ, an output is not finite, the
      database is empty or k is larger than it.

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
  k, valid = checked_request("asymmetric_search", k, database, valid, axis_name)
  with np.errstate(over="ignore"):  # what is beyond float32 is refused
    outputs = outputs.astype(np.float32)
  require_finite("asymmetric_search: outputs", outputs)
  if axis_name is None and choice.use_numba(outputs, database, valid):
    from udh_jax.cpu.lookup import has_look_ups

    if has_look_ups():
      return _search_on_cpu(np.asarray(outputs), np.asarray(database), valid, k)
  return _search(outputs, database, valid, k=k, axis_name=axis_name, chunk=_CHUNK)


def _search_on_cpu(outputs, database, valid, k):
  from udh_jax.cpu.similarity import most_similar

  kept = None if valid is None else np.flatnonzero(valid).astype(np.int32)
  database = database if kept is None else database[kept]
  scale = _scale(outputs, np)
  padded = np.pad(outputs / scale, ((0, 0), (0, -outputs.shape[1] % 8)))
  together = max(1, _CHUNK // (256 * database.shape[1]))
  found = [
    most_similar(_tables(padded[first : first + together], np), database, k)
    for first in range(0, max(len(padded), 1), together)
  ]
  similarities, indices = (np.concatenate(parts) for parts in zip(*found, strict=True))
  with np.errstate(over="ignore"):  # sums of outputs at the end of float32 are infinite
    similarities = similarities * scale
  return AsymmetricNeighbours(
    jnp.asarray(similarities), jnp.asarray(indices if kept is None else kept[indices])
  )


def most_similar_first(outputs: np.ndarray, codes: np.ndarray, k: int | None = None) -> np.ndarray:
  """The order of a few items by their similarity to one query, ties in the order given.

  Args:
    outputs: Of the query. Float array of shape ``[c]``.
    codes: uint8 array of shape ``[m, ceil(c / 8)]``.
    k: How many are asked for; None is all.

  Returns:
    Places in ``codes``. int64 array of shape ``[min(k, m)]``.
  """
  padded = np.zeros((1, 8 * codes.shape[1]), np.float32)
  padded[0, : len(outputs)] = outputs / _scale(outputs[None], np)[0]
  similarities = np.zeros(len(codes), np.float32)
  for table, column in zip(_tables(padded, np), codes.T, strict=True):
    similarities += table[0, column]
  if k is None or k >= len(codes):
    return np.argsort(-similarities, kind="stable")
  least = np.partition(similarities, len(codes) - k)[len(codes) - k]
  some = np.flatnonzero(similarities >= least)
  return some[np.argsort(-similarities[some], kind="stable")[:k]]


@functools.partial(jax.jit, static_argnames=("k", "axis_name", "chunk"))
def _search(outputs, database, valid, *, k, axis_name, chunk):
  num_queries, num_bits = outputs.shape
  num_items, width = database.shape
  together = max(1, min(num_queries, chunk // max(256 * width, k, _FEWEST)))
  rows = min(num_items, max(_FEWEST, k, chunk // together))
  starts = jnp.arange(-(-num_items // rows), dtype=jnp.int32) * rows
  scale = _scale(outputs, jnp)
  padded = jnp.pad(outputs / scale, ((0, -num_queries % together), (0, 8 * width - num_bits)))

  def best(similarities, indices):
    """Of equal ones `lax.top_k` takes the first, whose index is the smallest."""
    values, places = lax.top_k(similarities, k)
    return values, jnp.take_along_axis(indices, places, axis=1)

  # Typed inside `jax.shard_map` as differing between devices, as what takes its place.
  nothing = jnp.where(database.ravel()[:1] < 0, jnp.float32(0), jnp.float32(-jnp.inf))
  none = (
    jnp.broadcast_to(nothing, (together, k)),
    jnp.broadcast_to(jnp.where(nothing < 0, jnp.int32(NO_NEIGHBOUR), jnp.int32(0)), (together, k)),
  )

  def of_block(block):
    tables = _tables(block, jnp)  # of padding bits they say nothing

    def similarity(codes):
      """Sums of what bytes say, in one order for all items: equal codes are equally similar."""
      first, rest = tables[0][:, codes[:, 0]], (tables[1:], codes.T[1:])
      sums, _ = lax.scan(lambda sums, at: (sums + at[0][:, at[1]], None), first, rest)
      return jnp.where(sums == 0, 0, sums)  # `lax.top_k` puts -0 behind 0

    def take(found, start):
      at = jnp.minimum(start, num_items - rows)  # the last chunk begins within the one before
      indices = at + jnp.arange(rows, dtype=jnp.int32)
      known = indices >= start
      if valid is not None:
        known &= lax.dynamic_slice_in_dim(valid, at, rows)
      codes = lax.dynamic_slice_in_dim(database, at, rows)
      similarities = jnp.where(known, similarity(codes), -jnp.inf)
      indices = jnp.broadcast_to(indices, similarities.shape)
      both = zip(found, (similarities, indices), strict=True)
      return best(*(jnp.concatenate(parts, axis=1) for parts in both)), None

    return lax.scan(take, none, starts)[0]

  blocks = padded.reshape(len(padded) // together, together, 8 * width)
  values, indices = (part.reshape(-1, k)[:num_queries] for part in lax.map(of_block, blocks))
  if axis_name is not None:
    indices = indices + lax.axis_index(axis_name).astype(jnp.int32) * num_items
    gathered = (lax.all_gather(part, axis_name, axis=1, tiled=True) for part in (values, indices))
    values, indices = best(*gathered)
  indices = jnp.where(values == -jnp.inf, NO_NEIGHBOUR, indices)
  return AsymmetricNeighbours(values * scale, indices)


def _scale(outputs: Any, np: Any) -> Any:
  """By which sums of each query's outputs stay in range: ``[q, c]`` to ``[q, 1]``.

  Powers of two, so that nothing is rounded. ``np`` is NumPy or JAX's.
  """
  most = np.max(np.abs(outputs), axis=1, keepdims=True)
  exponents = np.clip(np.frexp(most)[1] - 1, -126, 126)  # beyond, reciprocals are not exact
  return np.where(most > 0, np.ldexp(np.float32(1), exponents), 1)


def _tables(outputs: Any, np: Any) -> Any:
  """What each byte of an item adds to the similarity: ``[q, 8 * bytes]`` to ``[bytes, q, 256]``.

  ``np`` is NumPy or JAX's.
  """
  by_byte = outputs.reshape(len(outputs), outputs.shape[1] // 8, 8).swapaxes(0, 1)
  values, total = np.arange(256), 0.0
  for bit in range(8):
    output = by_byte[:, :, bit, None]
    total = total + np.where((values >> (7 - bit)) & 1, output, -output)
  return total
