"""Codes and labels in, what every ranking score is made of out: counts and ranks of pairs."""

import concurrent.futures
import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.arrays import Array
from udh_jax.cpu import choice
from udh_jax.errors import require, require_outside
from udh_jax.machine import num_cores
from udh_jax.retrieval.hamming import as_long_words, as_words, checked_codes, word_distance

_CHUNK = 2**24  # pairs of query and database item held at once, or counts of them
_BLOCK = 2**22  # items of one query put in order at once


_NO_LABEL = -1  # the class of an item that is relevant to nothing


class Pairs(NamedTuple):
  """Queries and database, checked.

  Attributes:
    queries: Packed codes. uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_marks: Classes, int32 ``[q]``, or multi-hot labels as bits, uint8 ``[q, label bytes]``.
      No query has the class -1, which an item has that is relevant to nothing.
    database_marks: The same for the database.
    num_distances: How many values a distance can have: 8 * bytes + 1.
    max_gain: The most labels that two items can share.
  """

  queries: jax.Array | np.ndarray
  database: jax.Array | np.ndarray
  query_marks: np.ndarray
  database_marks: np.ndarray
  num_distances: int
  max_gain: int

  @property
  def gain_bits(self) -> int:
    """Bits of a key that hold the gain; the rest hold the distance."""
    return self.max_gain.bit_length()

  def as_words(self) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Queries, database and their marks as JAX counts them: bits as uint32 ``[rows, words]``."""
    query_marks, database_marks = (
      jnp.asarray(marks) if marks.ndim == 1 else as_words(jnp.asarray(marks))
      for marks in (self.query_marks, self.database_marks)
    )
    queries, database = as_words(jnp.asarray(self.queries)), as_words(jnp.asarray(self.database))
    return queries, database, query_marks, database_marks


class Profile(NamedTuple):
  """What the scores of each query are computed from.

  The last three are there only where items at equal distance are ranked by index.

  Attributes:
    items: Database items at each distance. int64 array of shape ``[q, distances]``.
    relevant: Those among them that share a label with the query. Of the same shape.
    gains: Labels they share with it, added up. Of the same shape.
    levels: Database items by the number of labels shared. int64 array of shape
      ``[q, max_gain + 1]``.
    precisions: At each cut-off, the precisions at the ranks of the relevant items within it, added
      up. float64 array of shape ``[q, cuts]``.
    retrieved: Relevant items within each cut-off. float64 array of shape ``[q, cuts]``.
    discounted: Gains within each cut-off, each divided by log2(rank + 1), added up. float64 array
      of shape ``[q, cuts]``.
  """

  items: np.ndarray
  relevant: np.ndarray
  gains: np.ndarray
  levels: np.ndarray
  precisions: np.ndarray
  retrieved: np.ndarray
  discounted: np.ndarray


def discounts(ranks: np.ndarray) -> np.ndarray:
  """1 / log2(rank + 1) for ranks from 1 on (Järvelin and Kekäläinen, TOIS 2002, base 2)."""
  return 1 / np.log2(ranks + 1)


def checked_pairs(
  name: str,
  queries: Array,
  database: Array,
  query_labels: Array,
  database_labels: Array,
) -> Pairs:
  """Checks codes and labels of a score.

  Args:
    name: The caller's name, for the message.
    queries: Packed codes. uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_labels: Integers of shape ``[q]``, -1 for none, or multi-hot {0, 1} of shape ``[q, L]``,
      L at least 1.
    database_labels: The same for the database, of the same kind.

  Returns:
    The pairs.

  Raises:
    InputError: If codes differ in width or are wider than `checked_codes` allows, labels differ in
      length or kind or have no column, or there is no query or no database item.
  """
  require_outside(name, queries, database, query_labels, database_labels)
  queries, database = checked_codes(name, queries, database)
  require(
    len(queries) >= 1 and len(database) >= 1,
    f"{name}: there are {len(queries)} queries and {len(database)} database items, expected at "
    "least one of each.",
  )
  query_labels, database_labels = np.asarray(query_labels), np.asarray(database_labels)
  for which, labels, codes in (
    ("query_labels", query_labels, queries),
    ("database_labels", database_labels, database),
  ):
    require(
      labels.ndim in (1, 2) and len(labels) == len(codes) and 0 not in labels.shape[1:],
      f"{name}: {which} have shape {labels.shape}, expected [{len(codes)}], or [{len(codes)}, L] "
      f"with L of 1 or more, for codes of shape {codes.shape}.",
    )
    if labels.ndim == 1:
      require(
        np.issubdtype(labels.dtype, np.integer) and labels.min() >= -1 and labels.max() < 2**31,
        f"{name}: {which} of shape {labels.shape} must be integers >= 0 and smaller than 2^31, -1 "
        "for an item without a label (or multi-hot [n, L]).",
      )
    else:
      require(
        bool(((labels == 0) | (labels == 1)).all()),
        f"{name}: {which} of shape {labels.shape} must be multi-hot, all values 0 or 1.",
      )
  require(
    query_labels.shape[1:] == database_labels.shape[1:],
    f"{name}: query_labels have shape {query_labels.shape} and database_labels "
    f"{database_labels.shape}; both must be classes [n] or multi-hot over the same L labels.",
  )
  if query_labels.ndim == 1:
    query_marks: np.ndarray
    database_marks: np.ndarray
    classes = np.where(query_labels == _NO_LABEL, _NO_LABEL - 1, query_labels)
    query_marks, database_marks = classes.astype(np.int32), database_labels.astype(np.int32)
    max_gain = 1
  else:
    both = query_labels.astype(bool), database_labels.astype(bool)
    query_marks, database_marks = (np.packbits(labels, axis=1) for labels in both)
    max_gain = max(1, min(int(labels.sum(axis=1).max()) for labels in both))
  return Pairs(queries, database, query_marks, database_marks, 8 * queries.shape[1] + 1, max_gain)


def keys_of(
  queries: jax.Array,
  database: jax.Array,
  query_marks: jax.Array,
  database_marks: jax.Array,
  *,
  gain_bits: int,
  dtype: jnp.dtype,
) -> jax.Array:
  """Keys of all pairs: distance * 2^gain_bits + labels shared. ``[q, n]`` of ``dtype``."""
  if query_marks.ndim == 1:
    gains = (query_marks[:, None] == database_marks[None, :]).astype(jnp.uint32)
  else:
    gains = jnp.zeros((), jnp.uint32)
    for word in range(query_marks.shape[1]):
      shared = query_marks[:, word, None] & database_marks[None, :, word]
      gains += jax.lax.population_count(shared)
  return ((word_distance(queries, database, jnp.uint32) << gain_bits) + gains).astype(dtype)


_jitted_keys = jax.jit(keys_of, static_argnames=("gain_bits", "dtype"))


def profile(pairs: Pairs, cuts: tuple[int, ...], *, by_index: bool) -> Profile:
  """Counts all pairs on the host, and ranks the relevant ones.

  Distances are small integers: they are counted, and only what lies within the largest cut-off is
  put in order.

  Args:
    pairs: Addressable by this process.
    cuts: Cut-offs, ascending, from 1 to the size of the database.
    by_index: Whether to rank items at equal distance by index.

  Returns:
    The profile.
  """
  if choice.use_numba(pairs.queries, pairs.database):
    return _profile_on_cpu(pairs, cuts, by_index=by_index)
  return _profile_with_jax(pairs, cuts, by_index=by_index)


def _profile_on_cpu(pairs, cuts, *, by_index):
  """No pair is held: as many places as the largest cut-off, for each query that a thread is at."""
  from udh_jax.cpu import ranking

  case = np.asarray(pairs.queries), np.asarray(pairs.database)
  case += tuple(
    marks if marks.ndim == 1 else as_long_words(marks)
    for marks in (pairs.query_marks, pairs.database_marks)
  )
  size, parts = max(1, _CHUNK // (pairs.num_distances * (pairs.max_gain + 1))), []
  for start in range(0, len(case[0]), size):
    queries, marks = (rows[start : start + size] for rows in (case[0], case[2]))
    counts = ranking.counted(queries, case[1], marks, case[3], max_gain=pairs.max_gain)
    parts.append(_counts(counts, pairs.max_gain))  # of [size, distances, gains]
  found = [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]
  sums = np.zeros((3, len(case[0]), 0))
  if by_index:
    weights = discounts(np.arange(1, cuts[-1] + 1))
    sums = ranking.ranked(
      *case, *found[:2], max_gain=pairs.max_gain, cuts=np.asarray(cuts), discounts=weights
    )
  return Profile(*found, *sums)


def _profile_with_jax(pairs, cuts, *, by_index):
  """One byte or two for each pair of a chunk are held, at most 2^24 of them or those of one query.

  Each thread orders at most 2^22 items at a time.
  """
  num_keys = pairs.num_distances << pairs.gain_bits
  with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
    parts = []
    for keys in _key_chunks(pairs, num_keys):
      counts = np.stack(list(pool.map(lambda row: np.bincount(row, minlength=num_keys), keys)))
      counts = counts.reshape(len(keys), pairs.num_distances, -1)  # [chunk, distances, gains]
      part = _counts(counts, pairs.max_gain)
      if by_index:
        rank = functools.partial(_rank, cuts=np.asarray(cuts), gain_bits=pairs.gain_bits)
        part += [np.stack(a) for a in zip(*pool.map(rank, keys, part[0], part[1]), strict=True)]
      else:
        part += [np.zeros((len(keys), 0))] * 3
      parts.append(part)
  return Profile(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _counts(counts, max_gain):
  """Items, relevant items and gains by distance, and items by gain, from counts by both."""
  counts = counts[..., : max_gain + 1]
  gains = counts @ np.arange(max_gain + 1)
  return [counts.sum(axis=2), counts[..., 1:].sum(axis=2), gains, counts.sum(axis=1)]


def _key_chunks(pairs: Pairs, num_keys: int) -> Iterator[np.ndarray]:
  """Yields keys [chunk, n] for all queries in order."""
  num_queries = len(pairs.queries)
  queries, database, query_marks, database_marks = pairs.as_words()
  size = max(1, min(num_queries, _CHUNK // max(len(pairs.database), num_keys)))
  dtype = jnp.dtype(next(t for t in ("uint8", "uint16", "uint32") if num_keys <= np.iinfo(t).max))
  for start in range(0, num_queries, size):
    stop = min(start + size, num_queries)
    # The last chunk is filled up with its first query, so that only one shape is compiled.
    rows = np.arange(start, start + size)
    rows[rows >= stop] = start
    keys = _jitted_keys(
      queries[rows],
      database,
      query_marks[rows],
      database_marks,
      gain_bits=pairs.gain_bits,
      dtype=dtype,
    )
    yield np.asarray(keys)[: stop - start]


def _rank(keys, items, relevant, *, cuts, gain_bits):
  """The last three fields of a `Profile` for one query, from its keys and counts."""
  largest = cuts[-1]
  ends = items.cumsum()
  place, found = ends - items, relevant.cumsum() - relevant  # before each distance, from here on
  limit = (np.searchsorted(ends, largest) + 1) << gain_bits  # keys below it hold the cut-off
  totals = np.zeros((3, len(cuts)))
  for start in range(0, len(keys), _BLOCK):
    block = keys[start : start + _BLOCK]
    if largest < len(keys):
      block = block[np.flatnonzero(block < limit)]  # quicker than by the mask itself
    distances = block >> gain_bits
    order = np.argsort(distances, kind="stable")  # a radix sort, for narrow integers
    gains = (block & ((1 << gain_bits) - 1))[order]
    hits = np.flatnonzero(gains > 0)  # places of relevant items in this block's order
    ranks, among = hits + 1, np.arange(1, len(hits) + 1)
    if len(keys) > _BLOCK:  # other blocks' items stand between these
      distance = distances[order[hits]]
      counts = np.bincount(distances, minlength=len(items))
      hit_counts = np.bincount(distance, minlength=len(items))
      ranks += (place - (counts.cumsum() - counts))[distance]
      among += (found - (hit_counts.cumsum() - hit_counts))[distance]
      place, found = place + counts, found + hit_counts
    values = np.stack([among / ranks, np.ones(len(hits)), gains[hits] * discounts(ranks)])
    sums = np.concatenate([np.zeros((3, 1)), values.cumsum(axis=1)], axis=1)
    totals += sums[:, np.searchsorted(ranks, cuts, side="right")]
  return totals
