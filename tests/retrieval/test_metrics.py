"""Retrieval scores against plain loops, hand computation and enumeration of every tie order."""

import math

import jax
import numpy as np
import pytest
from ranking_oracles import (
  bits_apart,
  is_relevant,
  plain_average_precision,
  plain_map,
  random_case,
  tie_orders,
)

from udh_jax.coding import pack_codes
from udh_jax.errors import InputError
from udh_jax.retrieval import (
  average_precision_description,
  mean_average_precision,
  precision_recall_by_radius,
  profile,
)

pytestmark = pytest.mark.usefixtures("each_kernel")

DENOMINATORS = ["retrieved", "min_k", "all"]


def test_a_hand_computed_example():
  # One query at 0; distances 0, 1, 1, 2, 3 in the order of the index; relevant: 1st, 3rd, 4th.
  database = np.array([[0], [1], [2], [3], [7]], np.uint8)
  case = (np.array([[0]], np.uint8), database, np.array([1]), np.array([1, 0, 1, 1, 0]))

  def score(**options):
    return mean_average_precision(*case, **options)

  # At 3: hits at ranks 1 and 3, precisions 1 and 2/3.
  assert score(at=3) == pytest.approx((1 + 2 / 3) / 2)
  assert score(at=3, denominator="min_k") == pytest.approx((1 + 2 / 3) / 3)
  assert score(at=2, denominator="min_k") == pytest.approx(1 / 2)
  assert score(at=2, denominator="all") == pytest.approx(1 / 3)
  assert score() == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
  # Ties averaged at 2: the second place is relevant in half of the orders.
  assert score(at=2, ties="expected") == pytest.approx((1 / 1 + (1 + 1) / 2) / 2)
  assert score(at=2, ties="expected", denominator="all") == pytest.approx((1 / 3 + 2 / 3) / 2)
  # At all: hits at 1, 2 or 3, 4.
  expected = (1 + (2 / 2 + 2 / 3) / 2 + 3 / 4) / 3
  assert score(ties="expected") == pytest.approx(expected)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("empty", ["zero", "drop"])
@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize("high", [256, 2])
def test_order_by_index_agrees_with_a_plain_loop(rng, denominator, empty, multi_hot, high):
  case = random_case(rng, 6, 45, high=high, multi_hot=multi_hot)
  for at in (1, 2, 7, 45, 1000, None):
    assert mean_average_precision(
      *case, at=at, denominator=denominator, empty=empty
    ) == pytest.approx(plain_map(*case, at, denominator, empty), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("empty", ["zero", "drop"])
def test_expected_ties_are_the_mean_over_every_order(rng, denominator, empty):
  for _ in range(12):
    n = int(rng.integers(1, 8))
    queries, database, query_labels, database_labels = random_case(rng, 1, n, 1, 4, classes=2)
    distances = [bits_apart(queries[0], code) for code in database]
    relevant = [bool(label == query_labels[0]) for label in database_labels]
    for at in range(1, n + 2):
      outcomes = [
        plain_average_precision(order, at, denominator) for order in tie_orders(distances, relevant)
      ]
      kept = [score for score, found in outcomes if found or empty == "zero"]
      expected = sum(kept) / len(kept) if kept else math.nan
      score = mean_average_precision(
        queries,
        database,
        query_labels,
        database_labels,
        at=at,
        denominator=denominator,
        ties="expected",
        empty=empty,
      )
      assert score == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_expected_ties_agree_with_sampled_orders_in_larger_cases(rng, denominator):
  queries, database, query_labels, database_labels = random_case(rng, 1, 300, 1, 16)
  at, samples = 100, []
  for _ in range(1500):
    order = rng.permutation(300)
    distances = np.unpackbits(database[order] ^ queries[0], axis=1).sum(axis=1)
    relevant = database_labels[order] == query_labels[0]
    ranked = relevant[np.argsort(distances, kind="stable")].tolist()
    samples.append(plain_average_precision(ranked, at, denominator)[0])
  score = mean_average_precision(
    queries,
    database,
    query_labels,
    database_labels,
    at=at,
    denominator=denominator,
    ties="expected",
  )
  assert abs(score - np.mean(samples)) < 5 * np.std(samples) / np.sqrt(len(samples))


@pytest.mark.parametrize("ties", ["index", "expected"])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_without_ties_both_rules_agree(rng, ties, denominator):
  # One query at 0 and codes with 0, 1, ..., 24 bits set, shuffled.
  database = np.asarray(pack_codes(np.where(np.tri(25, 24, -1) > 0, 1, -1)))[rng.permutation(25)]
  case = (np.zeros((1, 3), np.uint8), database, np.array([0]), rng.integers(0, 2, 25))
  for at in (1, 4, 25, None):
    score = mean_average_precision(*case, at=at, denominator=denominator, ties=ties)
    assert score == pytest.approx(plain_map(*case, at, denominator, "zero"))


@pytest.mark.parametrize("ties", ["index", "expected"])
def test_a_mask_on_all_codes_changes_nothing(rng, ties):
  queries, database, *labels = random_case(rng, 5, 60)
  mask = rng.integers(0, 256, 2, dtype=np.uint8)
  for at in (9, None):
    assert mean_average_precision(
      queries ^ mask, database ^ mask, *labels, at=at, ties=ties
    ) == mean_average_precision(queries, database, *labels, at=at, ties=ties)


@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_shuffling_the_database_changes_nothing_when_ties_are_averaged(rng, denominator):
  queries, database, query_labels, database_labels = random_case(rng, 5, 60, 1, 8)
  order = rng.permutation(60)

  def score(order, ties):
    return mean_average_precision(
      queries,
      database[order],
      query_labels,
      database_labels[order],
      at=20,
      denominator=denominator,
      ties=ties,
    )

  assert score(order, "expected") == score(np.arange(60), "expected")
  assert score(order, "index") != score(np.arange(60), "index")


@pytest.mark.parametrize("ties", ["index", "expected"])
@pytest.mark.parametrize("denominator", DENOMINATORS)
def test_all_relevant_and_none_relevant(rng, ties, denominator):
  queries, database, _, _ = random_case(rng, 4, 30, 1, 4)
  same, other = np.zeros(4, int), np.ones(30, int)
  options = {"denominator": denominator, "ties": ties}
  assert mean_average_precision(queries, database, same, 0 * other, **options) == pytest.approx(1)
  assert mean_average_precision(queries, database, same, other, **options) == 0
  assert math.isnan(mean_average_precision(queries, database, same, other, empty="drop", **options))


def test_the_denominator_alone_moves_the_score(rng):
  case = random_case(rng, 5, 60)
  scores = [mean_average_precision(*case, at=10, denominator=d) for d in DENOMINATORS]
  assert scores[0] > scores[1] > scores[2]


def test_one_class_a_row_as_multi_hot_gives_the_same_score(rng):
  queries, database, *labels = random_case(rng, 5, 60)
  hot = [np.eye(3)[label] for label in labels]
  for dtype in (bool, np.int64, np.float32):
    assert mean_average_precision(
      queries, database, *(h.astype(dtype) for h in hot), at=20
    ) == mean_average_precision(queries, database, *labels, at=20)


def test_many_labels_cross_word_boundaries():
  # 70 labels: more than two words of 32; relevance hangs on the last one alone.
  query_labels, database_labels = np.zeros((1, 70)), np.zeros((2, 70))
  query_labels[0, 69] = database_labels[1, 69] = database_labels[0, 37] = 1
  codes = np.zeros((2, 1), np.uint8)
  score = mean_average_precision(codes[:1], codes, query_labels, database_labels)
  assert score == pytest.approx(1 / 2)


@pytest.mark.parametrize("num_bytes", [15, 16, 32, 40])
@pytest.mark.parametrize("ties", ["index", "expected"])
def test_wide_codes(rng, num_bytes, ties):
  # From 16 bytes on, distance and relevance no longer fit one byte together.
  queries, database, *labels = random_case(rng, 2, 20, num_bytes)
  database[0], database[1] = ~queries[0], ~queries[1]
  distances = [[bits_apart(q, d) for d in database] for q in queries]
  assert max(map(max, distances)) == 8 * num_bytes
  expected = np.mean(
    [
      np.mean([plain_average_precision(o, 20, "all")[0] for o in tie_orders(row, relevant)])
      if ties == "expected"
      else plain_map(q[None], database, label[None], labels[1], None, "all", "zero")
      for q, row, label in zip(queries, distances, labels[0], strict=True)
      for relevant in [[bool(label == other) for other in labels[1]]]
    ]
  )
  score = mean_average_precision(queries, database, *labels, denominator="all", ties=ties)
  assert score == pytest.approx(expected)


@pytest.mark.parametrize("ties", ["index", "expected"])
def test_chunks_of_queries_do_not_show(rng, monkeypatch, ties, each_kernel):
  case = random_case(rng, 7, 50)
  whole = mean_average_precision(*case, at=10, ties=ties)
  curve = precision_recall_by_radius(*case)
  for count in (3, 1):  # queries at a time; 1: the database is larger than a chunk
    monkeypatch.setattr(profile, "_CHUNK", 150 if count == 3 else 1)
    if each_kernel == "numba":
      from udh_jax.cpu import ranking

      monkeypatch.setattr(ranking, "_QUERIES", count)
    assert mean_average_precision(*case, at=10, ties=ties) == pytest.approx(whole, abs=1e-12)
    np.testing.assert_array_equal(precision_recall_by_radius(*case), curve)


def test_arrays_may_live_on_the_device(rng):
  case = random_case(rng, 3, 20)
  on_device = [jax.numpy.asarray(array) for array in case]
  assert mean_average_precision(*on_device) == mean_average_precision(*case)


def test_large_ties_lose_no_precision():
  # All 200,000 items tie, 1 % relevant. The chance of a hit is 1 % at every rank, so with the
  # denominator "all" the expectation has the closed form computed here in exact summation.
  n, r, cut = 200_000, 2_000, 1_000
  labels = (np.arange(n) < r).astype(int)
  codes = np.zeros((n, 1), np.uint8)
  score = mean_average_precision(
    codes[:1], codes, np.array([1]), labels, at=cut, denominator="all", ties="expected"
  )
  terms = (r / n * (1 + (p - 1) * (r - 1) / (n - 1)) / p for p in range(1, cut + 1))
  assert score == pytest.approx(math.fsum(terms) / r, rel=1e-12)
  retrieved = mean_average_precision(
    codes[:1], codes, np.array([1]), labels, at=cut, ties="expected"
  )
  total = 0.0
  for y in range(1, 100):
    chance = math.comb(r, y) * math.comb(n - r, cut - y) / math.comb(n, cut)
    inner = math.fsum((1 + (p - 1) * (y - 1) / (cut - 1)) / p for p in range(1, cut + 1)) / cut
    total += chance * inner
  assert retrieved == pytest.approx(total, rel=1e-9)


def test_precision_and_recall_by_radius_agree_with_a_plain_count(rng):
  for multi_hot in (False, True):
    case = random_case(rng, 4, 30, 1, 256, multi_hot=multi_hot)
    queries, database, query_labels, database_labels = case
    curve = precision_recall_by_radius(*case)
    assert curve.precision.shape == curve.recall.shape == (9,)
    pairs = [
      (bits_apart(q, d), is_relevant(a, b))
      for q, a in zip(queries, query_labels, strict=True)
      for d, b in zip(database, database_labels, strict=True)
    ]
    for radius in range(9):
      within = [relevant for distance, relevant in pairs if distance <= radius]
      precision = sum(within) / len(within) if within else math.nan
      assert curve.precision[radius] == pytest.approx(precision, nan_ok=True)
      recall = sum(within) / sum(relevant for _, relevant in pairs)
      assert curve.recall[radius] == pytest.approx(recall)
    assert curve.recall[-1] == 1


def test_a_score_is_described_in_one_place():
  assert average_precision_description(at=1000) == (
    "mAP@1000 (denominator retrieved, ties by index, queries without relevant items count 0)"
  )
  assert average_precision_description(denominator="min_k", ties="expected", empty="drop") == (
    "mAP@ALL (denominator min(k, all relevant), ties averaged over all orders, "
    "queries without relevant items dropped)"
  )
  with pytest.raises(InputError, match="ties is 'random'"):
    average_precision_description(ties="random")


CODES = np.zeros((3, 2), np.uint8)
LABELS = np.array([0, 1, 2])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"database": np.zeros((3, 4), np.uint8)}, r"\(3, 2\) and database \(3, 4\)"),
    ({"queries": CODES.astype(float)}, "queries is float"),
    ({"queries": CODES[:0], "query_labels": LABELS[:0]}, "0 queries and 3 database items"),
    ({"database": CODES[:0], "database_labels": LABELS[:0]}, "3 queries and 0 database items"),
    (
      {"queries": np.zeros((3, 8192), np.uint8), "database": np.zeros((3, 8192), np.uint8)},
      "the codes have 8,192 bytes, expected at most 8,191",
    ),
    (
      {"query_labels": np.zeros((3, 0)), "database_labels": np.zeros((3, 0))},
      r"query_labels have shape \(3, 0\), expected .* with L of 1 or more",
    ),
    ({"query_labels": LABELS[:2]}, r"query_labels have shape \(2,\), expected \[3\]"),
    ({"database_labels": np.zeros((3, 1, 1))}, r"database_labels have shape \(3, 1, 1\)"),
    ({"query_labels": np.eye(3, dtype=int)}, r"\(3, 3\) and database_labels \(3,\)"),
    (
      {"query_labels": np.eye(3), "database_labels": np.ones((3, 4))},
      r"\(3, 3\) and database_labels \(3, 4\)",
    ),
    ({"query_labels": LABELS - 2}, "integers >= 0"),
    ({"query_labels": LABELS + 2**40}, "smaller than 2"),
    ({"query_labels": LABELS.astype(float)}, "integers >= 0"),
    ({"query_labels": 2 * np.eye(3), "database_labels": np.eye(3)}, "all values 0 or 1"),
    ({"at": 0}, "at is 0"),
    ({"at": 5.5}, "at is 5.5, expected a whole number"),
    ({"at": [5]}, r"at is \[5\], expected a whole number"),
    ({"at": True}, "at is True, expected a whole number"),
    ({"denominator": "k"}, "denominator is 'k', expected one of"),
    ({"ties": "random"}, "ties is 'random'"),
    ({"empty": "skip"}, "empty is 'skip'"),
  ],
)
def test_bad_input_is_refused_in_one_line(change, message):
  given = {
    "queries": CODES,
    "database": CODES,
    "query_labels": LABELS,
    "database_labels": LABELS,
  } | change
  arrays = [given.pop(name) for name in ("queries", "database", "query_labels", "database_labels")]
  with pytest.raises(InputError, match=message) as error:
    mean_average_precision(*arrays, **given)
  assert "\n" not in str(error.value)
