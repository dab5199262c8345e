"""The same run on one and on eight devices, and in two processes."""

import re
import socket

import numpy as np
import pytest
from command import codes, metrics, quickstart, run, stage_output, start

pytestmark = pytest.mark.slow


def losses(output: str, stage: str) -> dict[int, float]:
  """Loss by step, of the steps that were shown: the last one and one every few seconds."""
  pattern = rf"{stage}: step (\d+)/\d+.*  loss ([\d.]+)"
  return {int(step): float(value) for step, value in re.findall(pattern, output)}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("one")
  return workdir, run("train.py", *quickstart(workdir))


def compare(one, workdir, output):
  """Holds a run in ``workdir`` to the one on one device."""
  reference, reference_output = one
  for name in ("teacher", "finetune_1", "distill_16bits"):
    ours, theirs = losses(output, name), losses(reference_output, name)
    assert 6 in ours and 6 in theirs, "the last step is always shown"
    for step in ours.keys() & theirs.keys():
      assert abs(ours[step] - theirs[step]) <= 2e-4, (name, step)  # four decimals are shown
  ours = stage_output(workdir, "features_1")["features"]
  np.testing.assert_allclose(ours, stage_output(reference, "features_1")["features"], atol=1e-3)
  ours, theirs = (np.asarray(stage_output(w, "cluster_1")["labels"]) for w in (workdir, reference))
  np.testing.assert_array_equal(ours, theirs)
  assert (codes(workdir) == codes(reference)).mean() > 0.99
  (ours,), (theirs,) = metrics(workdir), metrics(reference)
  for name, value in theirs["mean_average_precision"].items():
    assert abs(ours["mean_average_precision"][name] - value) < 0.01, name


def test_eight_devices_learn_what_one_learns(one, tmp_path):
  output = run("train.py", *quickstart(tmp_path), devices=8)
  assert "[devices] 8 x cpu" in output
  compare(one, tmp_path, output)


def test_two_processes_of_four_devices_learn_what_one_learns(one, tmp_path):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  processes = [
    start(
      "train.py",
      *quickstart(tmp_path),
      f"--coordinator={address}",
      "--num_processes=2",
      f"--process_id={i}",
      devices=4,
    )
    for i in range(2)
  ]
  try:
    outputs = [process.communicate(timeout=600)[0] for process in processes]
  finally:
    for process in processes:
      process.kill()
  assert [process.returncode for process in processes] == [0, 0], outputs
  assert "[devices] 8 x cpu in 2 processes" in outputs[0]
  assert "distill_16bits" in outputs[0]
  assert "distill_16bits" not in outputs[1], "process 0 alone logs"
  compare(one, tmp_path, outputs[0])
