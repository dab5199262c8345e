"""All scores of one pass against plain loops, and against themselves on eight devices."""

import math

import jax
import numpy as np
import pytest
from ranking_oracles import bits_apart, is_relevant, random_case, tie_orders

from udh_jax.errors import InputError
from udh_jax.retrieval import (
  conventions,
  mean_average_precision,
  pairs,
  precision_recall_by_radius,
  retrieval_scores,
  sharded,
)


def gain(a, b):
  return int(a == b) if np.ndim(a) == 0 else int(np.sum(np.logical_and(a, b)))


def plain_scores(gains, cut):
  """Precision, recall and NDCG of a list of gains in ranked order."""
  cut = min(cut, len(gains))
  hits = sum(g > 0 for g in gains[:cut])
  total = sum(g > 0 for g in gains)

  def discounted(gains):
    return sum(g / math.log2(rank + 1) for rank, g in enumerate(gains[:cut], start=1))

  best = discounted(sorted(gains, reverse=True))
  return hits / cut, hits / total if total else 0.0, discounted(gains) / best if best else 0.0


@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize("empty", ["zero", "drop"])
def test_order_by_index_agrees_with_plain_loops(rng, multi_hot, empty):
  case = queries, database, query_labels, database_labels = random_case(
    rng, 9, 45, 1, 16, classes=30, multi_hot=multi_hot
  )
  cuts = (1, 2, 7, 45)
  found = retrieval_scores(*case, at=(7, 2, None, 1, 1000), empty=empty)
  assert found.cutoffs == cuts
  rows = []
  for code, label in zip(queries, query_labels, strict=True):
    order = sorted(range(45), key=lambda i: (bits_apart(code, database[i]), i))
    rows.append([gain(label, database_labels[i]) for i in order])
  without = sum(not any(row) for row in rows)
  assert found.irrelevant_queries == without
  assert found.num_queries == 9
  counted = [row for row in rows if any(row) or empty == "zero"]
  for column, cut in enumerate(cuts):
    expected = np.mean([plain_scores(row, cut) for row in counted], axis=0)
    for name, value in zip(("precision", "recall", "ndcg"), expected, strict=True):
      assert getattr(found, name)[column] == pytest.approx(value, abs=1e-12), (name, cut)
    assert found.empty_queries[column] == sum(not any(row[:cut]) for row in rows)
    score = mean_average_precision(*case, at=cut, empty=empty)
    np.testing.assert_allclose(found.mean_average_precision[column], score, rtol=1e-12)
  np.testing.assert_array_equal(found.radius_curve, precision_recall_by_radius(*case))


@pytest.mark.parametrize("multi_hot", [False, True])
def test_expected_ties_are_the_mean_over_every_order(rng, multi_hot):
  for _ in range(10):
    n = int(rng.integers(1, 8))
    queries, database, query_labels, database_labels = random_case(
      rng, 1, n, 1, 4, classes=2, multi_hot=multi_hot
    )
    distances = [bits_apart(queries[0], code) for code in database]
    gains = [gain(query_labels[0], label) for label in database_labels]
    found = retrieval_scores(
      queries, database, query_labels, database_labels, at=range(1, n + 1), ties="expected"
    )
    for cut in range(1, n + 1):
      orders = list(tie_orders(distances, gains))
      expected = np.mean([plain_scores(order, cut) for order in orders], axis=0)
      for name, value in zip(("precision", "recall", "ndcg"), expected, strict=True):
        assert getattr(found, name)[cut - 1] == pytest.approx(value, abs=1e-12), (name, cut)
      empty = np.mean([not any(order[:cut]) for order in orders])
      assert found.empty_queries[cut - 1] == pytest.approx(empty, abs=1e-12)


def test_precision_within_a_radius_counts_empty_balls_as_zero(rng):
  case = queries, database, query_labels, database_labels = random_case(rng, 20, 30, 2)
  for radius in (0, 2, 5, 16, 99):
    found = retrieval_scores(*case, radius=radius)
    precisions, empty = [], 0
    for code, label in zip(queries, query_labels, strict=True):
      ball = [i for i in range(30) if bits_apart(code, database[i]) <= radius]
      empty += not ball
      relevant = sum(is_relevant(label, database_labels[i]) for i in ball)
      precisions.append(relevant / len(ball) if ball else 0.0)
    assert found.radius_precision == pytest.approx(np.mean(precisions))
    assert found.empty_balls == empty
    assert found.radius == radius
  assert empty == 0


@pytest.mark.parametrize("block", [1, 7, 45])
@pytest.mark.parametrize("ties", ["index", "expected"])
@pytest.mark.parametrize("multi_hot", [False, True])
def test_blocks_of_the_database_do_not_show(rng, monkeypatch, block, ties, multi_hot):
  case = random_case(rng, 5, 45, 1, 32, multi_hot=multi_hot)
  whole = retrieval_scores(*case, at=(3, 20, None), ties=ties)
  monkeypatch.setattr(pairs, "_BLOCK", block)
  again = retrieval_scores(*case, at=(3, 20, None), ties=ties)
  for a, b in zip(again[1:6], whole[1:6], strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("ties", ["index", "expected"])
@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize("size", [1, 45, 128])
def test_devices_agree_with_the_host(rng, mesh, monkeypatch, ties, multi_hot, size):
  case = random_case(rng, 7, size, 1, 32, multi_hot=multi_hot)
  options = {"at": (1, 3, 20, None), "ties": ties}
  host = retrieval_scores(*case, **options)
  monkeypatch.setattr(sharded, "_ITEMS", 5)  # several blocks on a device, the last one short
  monkeypatch.setattr(sharded, "_CHUNK", 15)  # three queries at a time
  devices = retrieval_scores(*case, mesh=mesh, **options)
  for name, value in host._asdict().items():
    found = getattr(devices, name)
    if isinstance(value, str):
      assert found == value
    else:
      np.testing.assert_allclose(found, value, rtol=1e-5, err_msg=name)
  score = mean_average_precision(*case, at=3, ties=ties, mesh=mesh)
  assert score == pytest.approx(host.mean_average_precision[host.cutoffs.index(min(3, size))])


def test_the_kernel_runs_under_pmap_and_on_one_device(rng):
  parts = pairs.checked_pairs("test", *random_case(rng, 4, 40, 1, 32))
  options = {
    "cuts": (3, 40),
    "num_distances": parts.num_distances,
    "max_gain": parts.max_gain,
  }
  valid = np.ones(40, bool)
  query = parts.queries, parts.query_marks
  one = jax.jit(lambda *a: sharded.count_and_rank(*a, **options))(
    *query, parts.database, parts.database_marks, valid
  )
  rows = (
    np.reshape(a, (8, 5, *a.shape[1:])) for a in (parts.database, parts.database_marks, valid)
  )
  mapped = jax.pmap(
    lambda *a: sharded.count_and_rank(*query, *a, axis_name="i", **options), axis_name="i"
  )(*rows)
  for a, b in zip(one, mapped, strict=True):
    np.testing.assert_allclose(b, np.broadcast_to(a, b.shape), rtol=1e-5)


def test_conventions_stand_side_by_side(rng):
  case = random_case(rng, 5, 60, 1, 8)
  table = conventions(*case, at=(10, None))
  assert len(table) == 3 * 2 * 2 + 2 * 2
  assert table[
    "mAP@10 (denominator min(k, all relevant), ties averaged over all orders, "
    "queries without relevant items dropped)"
  ] == mean_average_precision(*case, at=10, denominator="min_k", ties="expected", empty="drop")
  assert table[
    "mAP@ALL (denominator all relevant, ties by index, queries without relevant items count 0)"
  ] == mean_average_precision(*case)
  assert conventions(*case, at=(60,)).keys() == {
    key.replace("ALL", "60") for key in table if "ALL" in key
  }


def test_a_mask_on_all_codes_and_another_order_of_the_queries_change_nothing(rng):
  queries, database, query_labels, database_labels = random_case(rng, 8, 50, multi_hot=True)
  mask, order = rng.integers(0, 256, 2, dtype=np.uint8), rng.permutation(8)
  plain = retrieval_scores(queries, database, query_labels, database_labels, at=(5, None))
  changed = retrieval_scores(
    queries[order] ^ mask, database ^ mask, query_labels[order], database_labels, at=(5, None)
  )
  for a, b in zip(plain[1:6], changed[1:6], strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"at": ()}, "at has no cut-off"),
    ({"at": (5, 0)}, "at is 0"),
    ({"radius": -1}, "radius is -1"),
  ],
)
def test_bad_input_is_one_clear_line(rng, options, words):
  with pytest.raises(InputError, match=words):
    retrieval_scores(*random_case(rng, 2, 5), **options)
