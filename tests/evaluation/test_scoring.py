"""Files of scores."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.evaluation.scoring import add_metrics, curves, left_out, position_of, score_codes
from udh_jax.retrieval import (
  average_precision_description,
  mean_average_precision,
  retrieval_scores,
)


def test_a_mean_over_no_query_is_null(tmp_path):
  codes = np.array([[0], [1], [255]], np.uint8)
  # The nearest item is of another class, so that at cut-off 1 no query is left.
  found = retrieval_scores(
    codes[:1], codes[1:], np.array([0]), np.array([1, 0]), at=(1, 2), empty="drop"
  )
  assert np.isnan(found.mean_average_precision[0])
  add_metrics(tmp_path, {"bits": 8, "curves": {"x": curves(found)}})
  (entry,) = json.loads((tmp_path / "metrics.json").read_text())
  assert entry["curves"]["x"]["mean_average_precision"] == [None, 0.5]


@pytest.mark.parametrize("at", [0, 3])
@pytest.mark.parametrize("denominator", ["retrieved", "min_k", "all"])
@pytest.mark.parametrize("ties", ["index", "expected"])
@pytest.mark.parametrize("empty", ["zero", "drop"])
def test_scores_are_those_of_the_definition_that_is_printed(rng, at, denominator, ties, empty):
  options = {"denominator": denominator, "ties": ties, "empty": empty}
  config = ConfigDict({"score": {"at": at, "curve": (2, 5, 99), "radius": 1, **options}, "seed": 0})
  codes = rng.integers(0, 8, (30, 1), dtype=np.uint8)
  labels = rng.integers(0, 8, 30)
  case = codes[:9], codes[9:], labels[:9], labels[9:]
  found = score_codes(config, *case)
  assert found.cutoffs == tuple(sorted({2, 5, 21, at} - {0}))
  score = mean_average_precision(*case, at=at or None, **options)
  assert found.mean_average_precision[position_of(config, found)] == pytest.approx(score)
  assert found.description in average_precision_description(at=at or None, **options)
  within = np.bitwise_count(codes[:9] ^ codes[9:].T) <= 1
  relevant = labels[:9, None] == labels[9:]
  hits = [
    (row & same).sum() / max(row.sum(), 1) for row, same in zip(within, relevant, strict=True)
  ]
  assert found.radius == 1 and found.radius_precision == pytest.approx(np.mean(hits))


def test_a_mean_that_leaves_queries_out_says_how_many():
  config = ConfigDict({"score": {"empty": "drop", "at": 3}})
  found = {
    name: SimpleNamespace(cutoffs=(3, 9), empty_queries=counts)
    for name, counts in (("Own", (12.5, 1.0)), ("ITQ", (300.0, 2.0)))
  }
  (line,) = left_out(config, found)
  assert "which mAP leaves out: Own 12.5, ITQ 300. NDCG" in line
  config.score.empty = "zero"
  assert left_out(config, found) == []
