"""Files of scores."""

import json

import numpy as np

from udh_jax.evaluation.scoring import add_metrics, curves
from udh_jax.retrieval import retrieval_scores


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
