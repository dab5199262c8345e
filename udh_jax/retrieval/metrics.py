"""Retrieval scores whose definition is named: cut-off, denominator, ties, empty queries."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from udh_jax.arrays import Array
from udh_jax.cpu import choice
from udh_jax.errors import require, whole_number
from udh_jax.retrieval.profile import Pairs, Profile, checked_pairs, discounts, profile
from udh_jax.retrieval.sharded import profile_on_devices

_QUERIES = 1024  # queries whose expectations are computed at once, at most
_NUMBERS = 2**20  # of each array that is held for them

DENOMINATORS = {
  "retrieved": "denominator retrieved",
  "min_k": "denominator min(k, all relevant)",
  "all": "denominator all relevant",
}
TIES = {"index": "ties by index", "expected": "ties averaged over all orders"}
EMPTY = {
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


class RetrievalScores(NamedTuple):
  """Scores of one set of codes, all from one pass; arrays have one value a cut-off.

  Attributes:
    cutoffs: Cut-offs k, ascending; the size of the database stands for the whole of it.
    mean_average_precision: As of `mean_average_precision`. float64 array of shape ``[cuts]``.
    precision: Relevant items among the first k / k, mean over the queries.
    recall: Relevant items among the first k / all relevant ones, mean over the queries.
    ndcg: Discounted gain of the first k / the most that any order could have, mean over the
      queries; the gain is the number of shared labels, the discount 1 / log2(rank + 1).
    empty_queries: Queries without a relevant item among the first k; with averaged ties the
      expected number.
    radius_curve: Of all pairs, see `precision_recall_by_radius`.
    radius: Of the next two.
    radius_precision: Relevant items within the radius / items within it, mean over the queries; 0
      for a query with nothing within it.
    empty_balls: Queries with nothing within the radius.
    irrelevant_queries: Queries without a relevant item in the whole database, which count 0 in, or
      are dropped from, ``precision``, ``recall`` and ``ndcg``.
    num_queries: All queries.
    average_precision: Of each query. float64 array of shape ``[q, cuts]``.
    items_at: Pairs at each distance. int64 array of shape ``[radii]``.
    relevant_at: Relevant ones among them.
    description: The options, in words.
  """

  cutoffs: tuple[int, ...]
  mean_average_precision: np.ndarray
  precision: np.ndarray
  recall: np.ndarray
  ndcg: np.ndarray
  empty_queries: np.ndarray
  radius_curve: RadiusCurve
  radius: int
  radius_precision: float
  empty_balls: int
  irrelevant_queries: int
  num_queries: int
  average_precision: np.ndarray
  items_at: np.ndarray
  relevant_at: np.ndarray
  description: str


def retrieval_scores(
  queries: Array,
  database: Array,
  query_labels: Array,
  database_labels: Array,
  *,
  at: Sequence[int | None] | int | None = (None,),
  radius: int = 2,
  denominator: str = "retrieved",
  ties: str = "index",
  empty: str = "zero",
  mesh: jax.sharding.Mesh | None = None,
) -> RetrievalScores:
  """All scores of one set of codes at all cut-offs, from one pass over the pairs.

  An item is relevant when it has the query's label, or shares one of them. With
  ``ties="expected"`` each score is its exact expectation over all orders of items at equal
  distance, in closed form; see `mean_average_precision`.

  Args:
    queries: Packed codes, from `pack_codes`. uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_labels: Class of each query, integers >= 0 of shape ``[q]``, or multi-hot {0, 1} of shape
      ``[q, L]``. An item of class -1 has no label, as one whose row is all 0: it is relevant to
      nothing, be it query or database item.
    database_labels: The same for the database, of the same kind.
    at: Cut-offs, each at least 1, or one of them; None (and any above n) means the whole database.
    radius: Hamming radius of ``radius_precision``, at least 0.
    denominator: Of average precision, see `mean_average_precision`.
    ties: "index" (items at equal distance in the order of the database) or "expected".
    empty: Whether queries without a relevant item count 0 ("zero") or not at all ("drop").
    mesh: Devices with one axis, to split the database over; None counts on this process's host,
      which is quicker on CPUs.

  Returns:
    The scores. Those that no query is left for are NaN.

  Raises:
    InputError: If codes differ in width, labels in length or kind, there is no query or no database
      item, or an option is unknown.

  References:
    Precision, recall and averages over ties: McSherry and Najork, Computing information retrieval
    performance measures efficiently in the presence of tied scores, ECIR 2008. NDCG: Järvelin and
    Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS 2002, with the discount of
    Burges et al., ICML 2005, and without the power of 2 in the gain.
  """
  at = _cutoffs(at)
  _check_options(denominator, ties, empty)
  radius = whole_number("radius", radius)
  require(radius >= 0, f"radius is {radius}, expected 0 or more.")
  pairs = checked_pairs("retrieval_scores", queries, database, query_labels, database_labels)
  cuts = _cuts(at, len(database))
  found = _profile(pairs, cuts, ties, mesh)
  num_queries = len(found.items)
  relevant = found.relevant.sum(axis=1)
  counted = relevant > 0 if empty == "drop" else np.ones(num_queries, bool)

  def mean(values):
    return values[counted].mean(axis=0) if counted.any() else np.full(len(cuts), np.nan)

  precisions, kept = _average_precision(found, cuts, denominator, ties)
  discount = np.concatenate([[0], discounts(np.arange(1, cuts[-1] + 1)).cumsum()])
  retrieved, discounted = found.retrieved, found.discounted
  if ties == "expected":
    retrieved = _expected_sums(found.items, found.relevant, np.arange(cuts[-1] + 1), cuts)
    discounted = _expected_sums(found.items, found.gains, discount, cuts)
  best = found.levels[:, :0:-1]  # items by gain, the largest first
  ideal = _expected_sums(best, best * np.arange(pairs.max_gain, 0, -1), discount, cuts)
  within = found.items.cumsum(axis=1)[:, min(radius, pairs.num_distances - 1)]
  hits = found.relevant.cumsum(axis=1)[:, min(radius, pairs.num_distances - 1)]
  return RetrievalScores(
    cutoffs=cuts,
    mean_average_precision=_mean_kept(precisions, kept, empty),
    precision=mean(retrieved / np.asarray(cuts)),
    recall=mean(retrieved / np.maximum(relevant, 1)[:, None]),
    ndcg=mean(discounted / np.where(ideal > 0, ideal, 1)),
    empty_queries=num_queries - kept.sum(axis=0),
    radius_curve=_radius_curve(found),
    radius=radius,
    radius_precision=float((hits / np.maximum(within, 1)).mean()),
    empty_balls=int((within == 0).sum()),
    irrelevant_queries=int((relevant == 0).sum()),
    num_queries=num_queries,
    average_precision=precisions,
    items_at=found.items.sum(axis=0),
    relevant_at=found.relevant.sum(axis=0),
    description=f"{DENOMINATORS[denominator]}, {TIES[ties]}, {EMPTY[empty]}",
  )


def mean_average_precision(
  queries: Array,
  database: Array,
  query_labels: Array,
  database_labels: Array,
  *,
  at: int | None = None,
  denominator: str = "retrieved",
  ties: str = "index",
  empty: str = "zero",
  mesh: jax.sharding.Mesh | None = None,
) -> float:
  """Mean over the queries of the average precision of the Hamming ranking.

  AP@k of one query is (1 / D) times the sum, over the relevant items among the first k, of the
  precision at their rank. An item is relevant when it has the query's label, or shares one of them.

  ``ties="expected"`` is the exact expectation over all orders of items at equal distance, in closed
  form, the denominator inside it: where the cut falls inside a tie, the number of relevant items
  retrieved is hypergeometric and the expectation runs over its values. With ``empty="drop"`` such a
  query is dropped in the share of orders that retrieve nothing relevant: the score is the sum of
  E[AP] / the sum of the chances that a query is kept.

  Args:
    queries: Packed codes, from `pack_codes`. uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_labels: Class of each query, integers >= 0 of shape ``[q]``, or multi-hot {0, 1} of shape
      ``[q, L]``. An item of class -1 has no label, as one whose row is all 0: it is relevant to
      nothing, be it query or database item.
    database_labels: The same for the database, of the same kind.
    at: The cut-off k, at least 1; None (and any k above n) means the whole database.
    denominator: D: "retrieved" (relevant items among the first k), "min_k" (the smaller of k and
      the number of relevant items) or "all" (all relevant items).
    ties: "index" (items at equal distance in the order of the database) or "expected".
    empty: A query without a relevant item among the first k counts 0 ("zero") or not at all
      ("drop").
    mesh: See `retrieval_scores`.

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
  at = _cutoff(at)
  _check_options(denominator, ties, empty)
  pairs = checked_pairs("mean_average_precision", queries, database, query_labels, database_labels)
  cuts = _cuts([at], len(database))
  values, kept = _average_precision(_profile(pairs, cuts, ties, mesh), cuts, denominator, ties)
  return float(_mean_kept(values, kept, empty)[0])


def conventions(
  queries: Array,
  database: Array,
  query_labels: Array,
  database_labels: Array,
  *,
  at: Sequence[int | None] | int | None = (1000, None),
  mesh: jax.sharding.Mesh | None = None,
) -> dict[str, float]:
  """The mAP of one set of codes under each convention of the literature, side by side.

  Args:
    queries: As of `mean_average_precision`.
    database: As there.
    query_labels: As there.
    database_labels: As there.
    at: Cut-offs; None means the whole database.
    mesh: See `retrieval_scores`.

  Returns:
    Scores by `average_precision_description`; a convention that equals another for a cut-off (at
    the whole database all denominators are one) is given once.

  Raises:
    InputError: As `mean_average_precision`.
  """
  at = _cutoffs(at)
  pairs = checked_pairs("conventions", queries, database, query_labels, database_labels)
  cuts = _cuts(at, len(database))
  found = _profile(pairs, cuts, "index", mesh)
  table = {}
  for cut in at:
    whole = cut is None or cut >= len(database)
    column = cuts.index(len(database) if whole else cut)
    one = found._replace(
      precisions=found.precisions[:, [column]], retrieved=found.retrieved[:, [column]]
    )
    for denominator in ["all"] if whole else DENOMINATORS:
      for ties in TIES:
        values, kept = _average_precision(one, cuts[column : column + 1], denominator, ties)
        for empty in EMPTY:
          words = average_precision_description(
            at=cut, denominator=denominator, ties=ties, empty=empty
          )
          table[words] = float(_mean_kept(values, kept, empty)[0])
  return table


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
  at = _cutoff(at)
  _check_options(denominator, ties, empty)
  cut = "ALL" if at is None else at
  return f"mAP@{cut} ({DENOMINATORS[denominator]}, {TIES[ties]}, {EMPTY[empty]})"


def precision_recall_by_radius(
  queries: Array,
  database: Array,
  query_labels: Array,
  database_labels: Array,
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
  pairs = checked_pairs(
    "precision_recall_by_radius", queries, database, query_labels, database_labels
  )
  return _radius_curve(profile(pairs, (1,), by_index=False))


def _cutoffs(at) -> list[int | None]:
  """Checked cut-offs, of one or of several."""
  several = list(at) if np.ndim(at) else [at]
  require(len(several) >= 1, "at has no cut-off; give one or more.")
  return [_cutoff(cut) for cut in several]


def _cutoff(at) -> int | None:
  """A checked cut-off; None stands for the whole database."""
  if at is None:
    return None
  cut = whole_number("at", at)
  require(cut >= 1, f"at is {cut}, expected None or a cut-off of at least 1.")
  return cut


def _check_options(denominator, ties, empty):
  for option, value, known in (
    ("denominator", denominator, DENOMINATORS),
    ("ties", ties, TIES),
    ("empty", empty, EMPTY),
  ):
    require(
      isinstance(value, str) and value in known,
      f"{option} is {value!r}, expected one of {sorted(known)}.",
    )


def _cuts(at, num_items: int) -> tuple[int, ...]:
  """Cut-offs, ascending, each once."""
  return tuple(sorted({min(cut or num_items, num_items) for cut in at}))


def _profile(pairs: Pairs, cuts: tuple[int, ...], ties: str, mesh) -> Profile:
  if mesh is None:
    return profile(pairs, cuts, by_index=ties == "index")
  return profile_on_devices(pairs, cuts, mesh, by_index=ties == "index")


def _mean_kept(values, kept, empty):
  """Means over queries ``[cuts]``; with "drop" a query counts as far as it is kept."""
  totals = kept.sum(axis=0) if empty == "drop" else np.full(values.shape[1], float(len(values)))
  return np.where(totals > 0, values.sum(axis=0) / np.where(totals > 0, totals, 1), np.nan)


def _radius_curve(found: Profile) -> RadiusCurve:
  items, relevant = found.items.sum(axis=0), found.relevant.sum(axis=0)
  hits = relevant.cumsum()
  with np.errstate(invalid="ignore"):
    return RadiusCurve(hits / items.cumsum(), hits / relevant.sum())


def _average_precision(found: Profile, cuts, denominator, ties):
  """AP of each query at each cut-off, and the chance that something relevant is within it."""
  if ties == "index":
    kept = (found.retrieved > 0).astype(float)
    relevant = found.relevant.sum(axis=1, keepdims=True)
    sizes = _denominator(denominator, found.retrieved, np.asarray(cuts), relevant)
    return found.precisions / np.maximum(sizes, 1), kept
  values, kept = np.zeros((2, len(found.items), len(cuts)))
  harmonic = np.concatenate([[0], np.cumsum(1 / np.arange(1, cuts[-1] + 1))])
  if choice.use_numba(found.items):
    from udh_jax.cpu.expectation import expected_average_precision

    for column, cut in enumerate(cuts):
      values[:, column], kept[:, column] = expected_average_precision(
        found.items, found.relevant, cut, denominator, harmonic
      )
    return values, kept
  for column, cut in enumerate(cuts):
    most = min(cut, int(found.relevant.max(initial=0))) + 1  # what a group may hold, none included
    together = max(1, min(_QUERIES, _NUMBERS // most))
    for start in range(0, len(values), together):
      rows = slice(start, start + together)
      values[rows, column], kept[rows, column] = _expected_average_precision(
        found.items[rows], found.relevant[rows], cut, denominator, harmonic
      )
  return values, kept


def _denominator(denominator, retrieved, cut, relevant):
  return {"retrieved": retrieved, "min_k": np.minimum(cut, relevant), "all": relevant}[denominator]


def _expected_sums(counts, values, cumulative, cuts):
  """Expected sums of weighted values within each cut-off, groups in order, each in random order.

  Args:
    counts: Items of each group. Array of shape ``[q, g]``.
    values: Their values, added up. Array of shape ``[q, g]``.
    cumulative: Sum of the weights of the first ranks. Array of shape ``[largest cut + 1]``.
    cuts: Cut-offs.

  Returns:
    Array of shape ``[q, cuts]``.
  """
  ends = counts.cumsum(axis=1)
  means = values / np.maximum(counts, 1)
  sums = [
    (means * (cumulative[np.minimum(ends, k)] - cumulative[np.minimum(ends - counts, k)])).sum(1)
    for k in cuts
  ]
  return np.stack(sums, axis=1)


def _expected_average_precision(items, relevant, cut, denominator, harmonic):
  """E[AP] of each query over the orders of ties, and the chance that it retrieves something.

  Items and relevant items are counted for each of g groups of equal distance, ``[q, g]``.
  """
  items_before = items.cumsum(axis=1) - items
  relevant_before = relevant.cumsum(axis=1) - relevant
  whole = items_before + items <= cut
  sums = _expected_precisions(items_before, relevant_before, items, relevant, harmonic, whole)
  base = sums.sum(axis=1)  # [q]

  # Of the group that the cut goes through, m items are taken; y of them are relevant.
  group = whole.sum(axis=1, keepdims=True)  # groups before the cut are all whole
  inside = group[:, 0] < items.shape[1]
  group = np.minimum(group, items.shape[1] - 1)
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
