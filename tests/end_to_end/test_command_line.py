"""The quickstart, shortened, by the programs that a user starts."""

import numpy as np
import pytest
from command import codes, metrics, quickstart, run
from sklearn.datasets import load_digits

import udh_jax

# What these programs do is tested in tests/commands, in one process.
pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A work directory of a finished run, and what the run printed."""
  workdir = tmp_path_factory.mktemp("run") / "work"
  return workdir, run("train.py", *quickstart(workdir))


def test_a_run_leaves_scores_pictures_events_and_checkpoints(finished):
  workdir, output = finished
  (entry,) = metrics(workdir)
  scores = entry["mean_average_precision"]
  assert next(iter(scores)) == "UDH-ECC"
  assert {"LSH", "PCA + rotation", "ITQ"} <= scores.keys()
  assert all(0 < value < 1 for value in scores.values())
  for words in ("denominator", "ties", "300 queries", "pre-training labels: none"):
    assert words in entry["definition"]
    assert words in output
  for name in ("neighbours_16bits.png", "precision_recall_16bits.png", "bits_16bits.png"):
    assert (workdir / name).read_bytes().startswith(b"\x89PNG")
  assert list((workdir / "events").glob("events.out.tfevents.*"))
  assert codes(workdir).shape == (1797, 2)


def test_the_report_is_one_page_that_reads_well(finished, browser):
  workdir, _ = finished
  for width in (400, 1400):
    seen = browser(workdir / "report_16bits.html", width)
    assert seen.errors == []
    assert seen.num_images == seen.num_loaded == 7
    assert seen.page_width <= width
    assert "mAP@ALL, 16 bits" in seen.text
    assert "denominator retrieved, ties by index" in seen.text


def test_the_hash_network_of_a_run_makes_its_codes(finished):
  workdir, _ = finished
  encoder = udh_jax.load_encoder(workdir / "encoder_16bits")
  images = (load_digits().images * 255 / 16 + 0.5).astype(np.uint8)[..., None].repeat(3, axis=3)
  assert encoder.about["picture_size"] == 8
  assert encoder.about["scores"] == metrics(workdir)[0]["mean_average_precision"]
  agree = np.unpackbits(encoder(images[:200]) ^ codes(workdir)[:200]).mean()
  assert agree < 0.002  # the sign of an output near 0 depends on the size of the batch


def test_progress_names_stage_step_rate_and_time_left(finished):
  _, output = finished
  assert "distill_16bits: step 6/6" in output
  assert "images/s" in output
  assert "left" in output


def test_other_libraries_are_silent(finished):
  assert not [line for line in finished[1].splitlines() if line.startswith(("I0", "W0", "WARNING"))]


def test_eval_scores_without_training_and_takes_another_definition(finished):
  workdir, output = finished
  again = run("eval.py", f"--workdir={workdir}")
  assert "finished before, restored" in again
  table = [line for line in output.splitlines() if line.startswith("|")]
  assert [line for line in again.splitlines() if line.startswith("|")] == table
  other = run("eval.py", f"--workdir={workdir}", "--set", "score.at=10")
  assert "mAP@10 " in other


def test_a_wrong_argument_ends_the_program_with_one_line_and_status_2(tmp_path):
  output = run("train.py", *quickstart(tmp_path / "work", "--config.bits=0"), status=2)
  assert "Traceback" not in output
  errors = [line for line in output.splitlines() if line.startswith("error: ")]
  assert len(errors) == 1 and "bits is 0" in errors[0]
