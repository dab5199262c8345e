"""Retrieval scores whose definition is named: cut-off, denominator, ties, empty queries."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.errors import require
from udh_jax.retrieval.hamming import as_words, checked_codes, distance_dtype, word_distance

_CHUNK = 2**24  # pairs of query and database item held at once

_DENOMINATORS = {
  "retrieved": "denominator retrieved",
  "min_k": "denominator min(k, all relevant)",
  "all": "denominator all relevant",
}
_TIES = {"index": "ties by index", "expected": "ties averaged over all orders"}
_EMPTY = {
  "zero": "queries without relevant items count 0",
  "drop": "queries without relevant items dropped",
}


class RadiusCurve(NamedTuple):
  """Precision and recall of all items within each Hamming radius 0, 1, ..., 8 * bytes.

  Attributes:
    precision: Relevant pairs within the radius / pairs within it; NaN where there are none. float64
      array of shape ``[radii]``.
    recall: Relevant pairs within the radius / all relevant pairs. float64 array of shape
      ``[radii]``.
  """

  precision: np.ndarray
  recall: np.ndarray


def mean_average_precision(
  queries: jax.Array,
  database: jax.Array,
  query_labels: jax.Array,
  database_labels: jax.Array,
  *,
  at: int | None = None,
  denominator: str = "retrieved",
  ties: str = "index",
  empty: str = "zero",
) -> float:
  """Mean over the queries of the average precision of the Hamming ranking.

  AP@k of one query is (1 / D) times the sum, over the relevant items among the first k, of the
  precision at their rank. An item is relevant when it has the query's label, or shares one of them.

  ``ties="expected"`` is the exact expectation over all orders of items at equal distance, in closed
  form, the denominator inside it: where the cut falls inside a tie, the number of relevant items
  retrieved is hypergeometric and the expectation runs over its values. With ``empty="drop"`` such a
  query is dropped in the share of orders that retrieve nothing relevant: the score is the sum of
  E[AP] / the sum of the chances that a query is kept.

  Counting runs on the host with one byte or two for each pair of a chunk; the queries are taken in
  chunks of at most 2^24 pairs (or one query). The arrays must be addressable by this process.

  Args:
    queries: Packed codes, from `pack_codes`. uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_labels: Class of each query, integers >= 0 of shape ``[q]``, or multi-hot {0, 1} of shape
      ``[q, L]``.
    database_labels: The same for the database, of the same kind.
    at: The cut-off k, at least 1; None (and any k above n) means the whole database.
    denominator: D: "retrieved" (relevant items among the first k), "min_k" (the smaller of k and
      the number of relevant items) or "all" (all relevant items).
    ties: "index" (items at equal distance in the order of the database) or "expected".
    empty: A query without a relevant item among the first k counts 0 ("zero") or not at all
      ("drop").

  Returns:
    The score, in [0, 1]; NaN if every query is dropped.

  Raises:
    InputError: If codes differ in width, labels in length or kind, there is no query or no database
      item, or an option is unknown.

  References:
    Papers differ in all four options; "retrieved" is what nearly every hashing paper computes.
    Expectations over ties: McSherry and Najork, Computing information retrieval performance
    measures efficiently in the presence of tied scores, ECIR 2008; that of the "retrieved"
    denominator is our own derivation.
  """
  _check_options(at, denominator, ties, empty)
  name = "mean_average_precision"
  queries, database, query_marks, database_marks = _checked(
    name, queries, database, query_labels, database_labels
  )
  cut = min(at or len(database), len(database))
  average = {"index": _average_precision_by_index, "expected": _expected_average_precision}[ties]
  total = kept = 0.0
  for keys in _chunks(queries, database, query_marks, database_marks):
    values, chances = average(keys, cut, denominator, 8 * database.shape[1] + 1)
    total += values.sum()
    kept += chances.sum() if empty == "drop" else len(chances)
  return float(total / kept) if kept > 0 else float("nan")


def average_precision_description(
  *,
  at: int | None = None,
  denominator: str = "retrieved",
  ties: str = "index",
  empty: str = "zero",
) -> str:
  """The words that go with a score of `mean_average_precision`, wherever it is printed.

  Args:
    at: As there.
    denominator: As there.
    ties: As there.
    empty: As there.

  Returns:
    For example "mAP@1000 (denominator retrieved, ties by index, queries without relevant items
    count 0)".

  Raises:
    InputError: If an option is unknown.
  """
  _check_options(at, denominator, ties, empty)
  cut = "ALL" if at is None else at
  return f"mAP@{cut} ({_DENOMINATORS[denominator]}, {_TIES[ties]}, {_EMPTY[empty]})"


def precision_recall_by_radius(
  queries: jax.Array,
  database: jax.Array,
  query_labels: jax.Array,
  database_labels: jax.Array,
) -> RadiusCurve:
  """Precision and recall of retrieving everything within a Hamming radius.

  Both are pooled over the queries (micro-averages): pairs of query and item are counted together,
  so that a query with an empty ball neither counts 0 nor has to be dropped. Ties do not matter.

  Args:
    queries: Packed codes, from `pack_codes`. uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_labels: Integers >= 0 of shape ``[q]``, or multi-hot {0, 1} of shape ``[q, L]``.
    database_labels: The same for the database, of the same kind.

  Returns:
    Precision and recall, a `RadiusCurve`, for the radii 0 .. 8 * bytes. Recall is NaN if there is
    no relevant pair at all.

  Raises:
    InputError: If codes differ in width, labels in length or kind, or there is no query or no
      database item.

  References:
    The "hash lookup" curve of the literature, which averages over queries instead.
  """
  name = "precision_recall_by_radius"
  queries, database, query_marks, database_marks = _checked(
    name, queries, database, query_labels, database_labels
  )
  num_values = 8 * database.shape[1] + 1
  items = np.zeros(num_values)
  relevant = np.zeros(num_values)
  for keys in _chunks(queries, database, query_marks, database_marks):
    counts, relevant_counts = _count(keys, num_values)
    items += counts.sum(axis=0)
    relevant += relevant_counts.sum(axis=0)
  found = relevant.cumsum()
  with np.errstate(invalid="ignore"):
    return RadiusCurve(found / items.cumsum(), found / relevant.sum())


def _check_options(at, denominator, ties, empty):
  require(at is None or at >= 1, f"at is {at}, expected None or a cut-off of at least 1.")
  for option, value, known in (
    ("denominator", denominator, _DENOMINATORS),
    ("ties", ties, _TIES),
    ("empty", empty, _EMPTY),
  ):
    require(value in known, f"{option} is {value!r}, expected one of {sorted(known)}.")


def _checked(name, queries, database, query_labels, database_labels):
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
      labels.ndim in (1, 2) and len(labels) == len(codes),
      f"{name}: {which} have shape {labels.shape}, expected [{len(codes)}] or [{len(codes)}, L] "
      f"for codes of shape {codes.shape}.",
    )
    if labels.ndim == 1:
      require(
        np.issubdtype(labels.dtype, np.integer) and labels.min() >= 0 and labels.max() < 2**31,
        f"{name}: {which} of shape {labels.shape} must be integers >= 0 and smaller than 2^31 "
        "(or multi-hot [n, L]).",
      )
    else:
      require(
        bool(np.isin(labels, (0, 1)).all()),
        f"{name}: {which} of shape {labels.shape} must be multi-hot, all values 0 or 1.",
      )
  require(
    query_labels.shape[1:] == database_labels.shape[1:],
    f"{name}: query_labels have shape {query_labels.shape} and database_labels "
    f"{database_labels.shape}; both must be classes [n] or multi-hot over the same L labels.",
  )
  return queries, database, _marks(query_labels), _marks(database_labels)


def _marks(labels):
  """Classes as they are, [n]; multi-hot labels as bits, uint32 [n, words]."""
  if labels.ndim == 1:
    return jnp.asarray(labels)
  return as_words(jnp.asarray(np.packbits(labels.astype(bool), axis=1)))


def _chunks(queries, database, query_marks, database_marks) -> Iterator[np.ndarray]:
  """Yields [chunk, n] keys 2 * distance + relevant, for all queries in order."""
  size = max(1, min(len(queries), _CHUNK // len(database)))
  database_words = as_words(database)
  for start in range(0, len(queries), size):
    stop = min(start + size, len(queries))
    # The last chunk is filled up with its first query, so that only one shape is compiled.
    rows = np.arange(start, start + size)
    rows[rows >= stop] = start
    keys = _keys(
      as_words(queries[rows]),
      database_words,
      query_marks[rows],
      database_marks,
      num_bytes=queries.shape[1],
    )
    yield np.asarray(keys)[: stop - start]


@functools.partial(jax.jit, static_argnames="num_bytes")
def _keys(queries, database, query_marks, database_marks, *, num_bytes):
  if query_marks.ndim == 1:
    relevant = query_marks[:, None] == database_marks[None, :]
  else:
    relevant = jnp.zeros((len(queries), len(database)), bool)
    for word in range(query_marks.shape[1]):
      relevant |= (query_marks[:, word, None] & database_marks[None, :, word]) != 0
  distances = word_distance(queries, database, jnp.uint32)
  return (2 * distances + relevant).astype(distance_dtype(2 * num_bytes))


def _count(keys, num_values):
  """Items and relevant items of each query at each distance, both [chunk, num_values]."""
  counts = np.stack([np.bincount(row, minlength=2 * num_values) for row in keys])
  relevant = counts[:, 1::2]
  return counts[:, ::2] + relevant, relevant


def _average_precision_by_index(keys, cut, denominator, num_values):
  """AP of each query, and whether it has a relevant item within the cut, as 0 or 1."""
  values, kept = np.zeros(len(keys)), np.zeros(len(keys))
  ranks = np.arange(1, cut + 1)
  for i, row in enumerate(keys):
    order = np.argsort(row >> 1, kind="stable")  # a radix sort, for these narrow integers
    found = row[order[:cut]] & 1
    retrieved = found.cumsum(dtype=np.int64)
    if retrieved[-1] == 0:
      continue
    size = _denominator(denominator, retrieved[-1], cut, np.count_nonzero(row & 1))
    values[i] = (retrieved / ranks)[found == 1].sum() / size
    kept[i] = 1
  return values, kept


def _denominator(denominator, retrieved, cut, relevant):
  return {"retrieved": retrieved, "min_k": np.minimum(cut, relevant), "all": relevant}[denominator]


def _expected_average_precision(keys, cut, denominator, num_values):
  """E[AP] of each query over the orders of ties, and the chance that it retrieves something."""
  items, relevant = _count(keys, num_values)  # [q, g] for each of g groups of equal distance
  harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, cut + 1))])
  items_before = items.cumsum(axis=1) - items
  relevant_before = relevant.cumsum(axis=1) - relevant
  whole = items_before + items <= cut
  sums = _expected_precisions(items_before, relevant_before, items, relevant, harmonic, whole)
  base = sums.sum(axis=1)  # [q]

  # Of the group that the cut goes through, m items are taken; y of them are relevant.
  group = whole.sum(axis=1, keepdims=True)  # groups before the cut are all whole
  inside = group[:, 0] < num_values
  group = np.minimum(group, num_values - 1)
  n, r, before, found = (
    np.take_along_axis(array, group, axis=1)
    for array in (items, relevant, items_before, relevant_before)
  )  # [q, 1]
  n, r = n * inside[:, None], r * inside[:, None]
  found = np.where(inside[:, None], found, relevant.sum(axis=1, keepdims=True))
  m = np.where(inside[:, None], cut - before, 0)
  least = np.maximum(0, m - (n - r))
  y = least + np.arange((np.minimum(m, r) - least).max() + 1)  # [q, y]
  chances = _hypergeometric(y, n, r, m)
  partial = _expected_precisions(before, found, m, np.minimum(y, m), harmonic, chances > 0)
  sizes = _denominator(denominator, found + y, cut, relevant.sum(axis=1, keepdims=True))
  values = (chances * (base[:, None] + partial) / np.maximum(sizes, 1)).sum(axis=1)
  return values, (chances * (found + y > 0)).sum(axis=1)


def _expected_precisions(before, found, n, r, harmonic, where):
  """Expected sum of precisions at the relevant ranks of a group in random order.

  Before the group stand `before` items, `found` of them relevant; it has n items, r of them
  relevant. Place t is relevant with chance r / n, and then the t - 1 places before it in the group
  hold (t - 1) s relevant ones in the mean, s = (r - 1) / (n - 1). With p = before + t the rank, the
  sum over the group is (r / n) sum_p [s + (found + 1 - (before + 1) s) / p].
  """
  n = np.where(where, n, 0)
  slope = (r - 1) / np.maximum(n - 1, 1)
  spread = harmonic[np.where(where, before + n, 0)] - harmonic[np.where(where, before, 0)]
  total = slope * n + (found + 1 - (before + 1) * slope) * spread
  return np.where(n > 0, r / np.maximum(n, 1) * total, 0)


def _hypergeometric(y, n, r, m):
  """Chance that m of n items, r of them relevant, hold y relevant ones. y [q, y] ascends by 1."""
  possible = y <= np.minimum(m, r)
  y = np.where(possible, y, 0)
  # Ratios of neighbours, added up in logarithms, lose less than factorials of large numbers do.
  ratio = (r - y) * (m - y) / ((y + 1) * np.maximum(n - r - m + y + 1, 1))
  ratio = np.log(np.where(possible & (ratio > 0), ratio, 1))
  logs = np.concatenate([np.zeros_like(ratio[:, :1]), np.cumsum(ratio, axis=1)[:, :-1]], axis=1)
  logs = np.where(possible, logs, -np.inf)
  chances = np.exp(logs - logs.max(axis=1, keepdims=True))
  return chances / chances.sum(axis=1, keepdims=True)
