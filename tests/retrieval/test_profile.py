"""All scores of one pass against plain loops, and against themselves on eight devices."""

import math

import jax
import numpy as np
import pytest
from ranking_oracles import bits_apart, is_relevant, random_case, tie_orders

from udh_jax.cpu import choice
from udh_jax.errors import InputError
from udh_jax.retrieval import (
  conventions,
  mean_average_precision,
  precision_recall_by_radius,
  profile,
  retrieval_scores,
  sharded,
)

pytestmark = pytest.mark.usefixtures("each_kernel")


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
  monkeypatch.setattr(profile, "_BLOCK", block)
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


def test_long_codes_with_many_shared_labels_fit_a_key():
  """Distance, place and gain of a pair share 32 bits, which bounds a block of items."""
  shape = jax.ShapeDtypeStruct
  codes = [(2, 128), (2, 1), (8300, 128), (8300, 1)]  # of 4,096 bits
  found = jax.eval_shape(
    lambda *a: sharded.count_and_rank(*a, cuts=(9,), num_distances=4097, max_gain=127),
    *(shape(size, np.uint32) for size in codes),
    shape((8300,), bool),
  )
  assert found[0].shape == (2, 4097)


def test_the_kernel_runs_under_pmap_and_on_one_device(rng):
  parts = profile.checked_pairs("test", *random_case(rng, 4, 40, 1, 32))
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


@pytest.mark.parametrize("ties", ["index", "expected"])
@pytest.mark.parametrize("multi_hot", [False, True])
@pytest.mark.parametrize("num_bytes", [1, 8, 33])
def test_both_kernels_give_the_same_numbers(rng, ties, multi_hot, num_bytes):
  # More items than a tile, blocks that are not full, a class beyond a byte.
  case = random_case(rng, 40, 2300, num_bytes, classes=300, multi_hot=multi_hot)
  found = retrieval_scores(*case, at=(1, 7, 1000, None), ties=ties)
  with choice.kernels("jax"):
    expected = retrieval_scores(*case, at=(1, 7, 1000, None), ties=ties)
  for name, value in expected._asdict().items():
    if ties == "index" or name.endswith("_at"):
      np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    elif not isinstance(value, str):
      np.testing.assert_allclose(getattr(found, name), value, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("multi_hot", [False, True])
def test_an_item_without_a_label_is_relevant_to_nothing(rng, mesh, multi_hot):
  queries, database, *labels = random_case(rng, 6, 50, classes=4)
  unlabelled = [np.where(rng.random(len(each)) < 0.3, -1, each) for each in labels]
  assert all((each == -1).any() for each in unlabelled)
  alone = [
    np.where(each == -1, 100 + 100 * side + np.arange(len(each)), each)
    for side, each in enumerate(unlabelled)
  ]
  if multi_hot:
    unlabelled = [np.eye(4, dtype=int)[each] * (each >= 0)[:, None] for each in unlabelled]
  found = retrieval_scores(queries, database, *unlabelled, at=(5, None))
  expected = retrieval_scores(queries, database, *alone, at=(5, None))
  split = retrieval_scores(queries, database, *unlabelled, at=(5, None), mesh=mesh)
  for a, b, c in zip(found, expected, split, strict=True):
    np.testing.assert_array_equal(a, b)
    if not isinstance(a, str):
      np.testing.assert_allclose(c, a, rtol=1e-5)


def test_one_cutoff_may_stand_alone(rng):
  case = random_case(rng, 4, 30)
  for at in (5, np.int64(5), 5.0, (np.int32(5),)):
    assert retrieval_scores(*case, at=at).cutoffs == (5,)
  assert retrieval_scores(*case, at=None).cutoffs == (30,)


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
    ({"at": 5.5}, "at is 5.5, expected a whole number"),
    ({"at": (3, 5.5)}, "at is 5.5, expected a whole number"),
    ({"at": "5"}, "at is '5', expected a whole number"),
    ({"radius": -1}, "radius is -1"),
    ({"radius": 1.5}, "radius is 1.5, expected a whole number"),
  ],
)
def test_bad_input_is_one_clear_line(rng, options, words):
  with pytest.raises(InputError, match=words):
    retrieval_scores(*random_case(rng, 2, 5), **options)


@pytest.mark.parametrize("multi_hot", [False, True])
def test_pairs_and_relevant_pairs_are_counted_by_distance(rng, multi_hot):
  case = random_case(rng, 6, 30, 1, 256, multi_hot=multi_hot)
  found = retrieval_scores(*case)
  items, relevant = np.zeros(9, int), np.zeros(9, int)
  for code, label in zip(case[0], case[2], strict=True):
    for other, its in zip(case[1], case[3], strict=True):
      items[bits_apart(code, other)] += 1
      relevant[bits_apart(code, other)] += is_relevant(label, its)
  np.testing.assert_array_equal(found.items_at, items)
  np.testing.assert_array_equal(found.relevant_at, relevant)
