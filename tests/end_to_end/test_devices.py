"""The quickstart on one and on eight devices; for two processes see test_every_method.py."""

import re

import numpy as np
import pytest
from command import codes, metrics, quickstart, run, stage_output

pytestmark = pytest.mark.slow


def losses(output: str, stage: str) -> dict[int, float]:
  """Loss by step, of the steps that were shown: the last one and one every few seconds."""
  pattern = rf"{stage}: step (\d+)/\d+.*  loss ([\d.]+)"
  return {int(step): float(value) for step, value in re.findall(pattern, output)}


def test_eight_devices_learn_what_one_learns(tmp_path):
  one, eight = tmp_path / "one", tmp_path / "eight"
  printed = run("train.py", *quickstart(one))
  printed_by_eight = run("train.py", *quickstart(eight), devices=8)
  assert "[devices] 8 x cpu" in printed_by_eight
  for name in ("teacher", "finetune_1", "distill_16bits"):
    ours, theirs = losses(printed_by_eight, name), losses(printed, name)
    assert 6 in ours and 6 in theirs, "the last step is always shown"
    for step in ours.keys() & theirs.keys():
      assert abs(ours[step] - theirs[step]) <= 2e-4, (name, step)  # four decimals are shown
  ours, theirs = (stage_output(w, "features_1")["features"] for w in (eight, one))
  np.testing.assert_allclose(ours, theirs, atol=1e-3)
  ours, theirs = (np.asarray(stage_output(w, "cluster_1")["labels"]) for w in (eight, one))
  np.testing.assert_array_equal(ours, theirs)
  assert (codes(eight) == codes(one)).mean() > 0.99
  (ours,), (theirs,) = metrics(eight), metrics(one)
  for name, value in theirs["mean_average_precision"].items():
    assert abs(ours["mean_average_precision"][name] - value) < 0.01, name
