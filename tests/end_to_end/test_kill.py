"""kill -9 in every stage, then the same command: the same codes, bit for bit."""

import signal

import numpy as np
import pytest
from command import codes, quickstart, run, start

TRAINED = ("teacher", "finetune_1", "distill_16bits")
MAPPED = ("features_1", "soft_labels", "encode_16bits")
# So few images at a time that a stage over all images has many steps to be killed between.
SMALL = (
  "--config.features.batch_size=64",
  "--config.soft_labels.batch_size=64",
  "--config.encode.batch_size=64",
)


def run_until_killed(workdir, stage: str) -> bool:
  """Kills the run as soon as ``stage`` has saved its progress; False if it finished before."""
  process = start("train.py", *quickstart(workdir, *SMALL))
  saves = workdir / "stages" / stage / "progress"
  try:
    while process.poll() is None:
      if list(saves.glob("*.json")):
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False
  finally:
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("whole")
  run("train.py", *quickstart(workdir, *SMALL))
  return codes(workdir)


def test_a_run_killed_in_each_stage_ends_with_the_same_codes(uninterrupted, tmp_path):
  for stage in (*TRAINED, *MAPPED):
    assert run_until_killed(tmp_path, stage), f"{stage} was over before it could be killed"
    assert not (tmp_path / "stages" / stage / "output.json").exists()
  output = run("train.py", *quickstart(tmp_path, *SMALL))
  assert "encode_16bits: 29 steps from step" in output
  np.testing.assert_array_equal(codes(tmp_path), uninterrupted)
