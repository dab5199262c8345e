"""kill -9 in every stage, then the same command: the same codes, bit for bit."""

import signal
import time

import jax
import numpy as np
import pytest
from command import codes, quickstart, run, stage_output, start

pytestmark = pytest.mark.slow

# In the order in which they run: trained ones, ones over all images, and one in a single step.
STAGES = (
  "teacher",
  "features_1",
  "cluster_1",
  "finetune_1",
  "soft_labels",
  "distill_16bits",
  "encode_16bits",
)
# So few images at a time that a stage over all images has many steps to be killed between.
SMALL = (
  "--config.features.batch_size=64",
  "--config.soft_labels.batch_size=64",
  "--config.encode.batch_size=64",
)


def run_until_killed(workdir, stage: str) -> bool:
  """Kills the run in the middle of ``stage``: once it has saved its progress or, where it has no
  steps, once it has begun. False if the run ended before."""
  process = start("train.py", *quickstart(workdir, *SMALL))
  folder = workdir / "stages" / stage
  mark = "stage.json" if stage.startswith("cluster") else "progress/*.json"
  try:
    while process.poll() is None:
      if list(folder.glob(mark)):
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
      time.sleep(0.005)
    return False
  finally:
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  run("train.py", *quickstart(workdir, *SMALL))
  return workdir


def test_a_run_killed_in_each_stage_ends_bit_for_bit_the_same(uninterrupted, tmp_path):
  for stage in STAGES:
    assert run_until_killed(tmp_path, stage), f"{stage} was over before it could be killed"
    assert not (tmp_path / "stages" / stage / "output.json").exists()
  output = run("train.py", *quickstart(tmp_path, *SMALL))
  assert "encode_16bits: 29 steps from step" in output
  np.testing.assert_array_equal(codes(tmp_path), codes(uninterrupted))
  ours, theirs = (
    jax.tree.leaves(stage_output(workdir, "distill_16bits")["variables"])
    for workdir in (tmp_path, uninterrupted)
  )
  for mine, other in zip(ours, theirs, strict=True):
    np.testing.assert_array_equal(mine, other)
