"""``udh-jax train`` and ``udh-jax eval`` from their arguments on, in this process."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import udh_jax
from udh_jax.commands import evaluate, flags, train
from udh_jax.data.registry import load_dataset
from udh_jax.methods.run import stored_config
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import save_weights
from udh_jax.runtime import checkpoint
from udh_jax.runtime import mesh as mesh_lib

NUM_PICTURES = 40
# What a user writes for small pictures, and so short that nothing is learned.
CONFIGURATION = """
from udh_jax.methods import psch

def get_config():
  config = psch.default_config("folder", image_size=8, num_queries=10)
  config.update(bits=8, checkpoint_every=2)
  config.teacher.update(backbone="small_convnet", image_size=8)
  config.student.image_size = 8
  config.features.image_sizes = (8,)
  config.cluster.update(num_clusters=4, num_restarts=1, max_iterations=12)
  config.psch.update(steps=3, batch_size=8)
  config.score.at = 0
  return config
"""


def ends_well(main, *arguments):
  """Runs a program to its end."""
  with pytest.raises(SystemExit) as caught:
    main([str(argument) for argument in arguments])
  assert not caught.value.code, caught.value.code


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Pictures in two class folders, a configuration for them, and a network of random weights."""
  folder = tmp_path_factory.mktemp("commands")
  rng = np.random.default_rng(0)
  for number in range(NUM_PICTURES):
    path = folder / "pictures" / ("red", "blue")[number % 2] / f"{number:02}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    color = ((200, 30, 30), (30, 30, 200))[number % 2]
    noise = rng.integers(-90, 90, (12, 10, 3)) + color
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)
  (folder / "small.py").write_text(CONFIGURATION)
  images = np.zeros((1, 8, 8, 3), np.float32)
  variables = jax.jit(create_backbone("small_convnet").init)(jax.random.key(0), images)
  weights, about = folder / "small.safetensors", {"pretrained_on": "none"}
  save_weights("small_convnet", variables, weights, metadata=about)
  return folder


@pytest.fixture(scope="module")
def arguments(folder):
  return (
    f"--config={folder / 'small.py'}",
    f"--config.data.path={folder / 'pictures'}",
    f"--config.teacher.weights={folder / 'small.safetensors'}",
    f"--workdir={folder / 'run'}",
  )


@pytest.fixture(scope="module")
def finished(folder, arguments):
  """A work directory of a finished run."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr("udh_jax.report.sections.GALLERY_QUERIES", 2)
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    ends_well(train.main, *arguments)
    yield folder / "run"


def metrics(workdir):
  return json.loads((workdir / "metrics.json").read_text())


def codes_of(workdir, bits=8):
  found = checkpoint.load(
    workdir / "stages" / f"encode_{bits}bits" / "output",
    num_rows=NUM_PICTURES,
    mesh=mesh_lib.make_mesh(),
  )
  return mesh_lib.to_host(found["codes"], NUM_PICTURES)


@pytest.mark.slow
def test_a_run_leaves_scores_pictures_events_and_checkpoints(finished):
  (entry,) = metrics(finished)
  scores = entry["mean_average_precision"]
  assert next(iter(scores)) == "PSCH"
  assert {"LSH", "PCA + rotation", "ITQ"} <= scores.keys()
  assert all(0 < value <= 1 for value in scores.values())
  for words in ("denominator", "ties", "10 queries", "pre-training labels: none"):
    assert words in entry["definition"]
  for name in ("neighbours_8bits.png", "precision_recall_8bits.png", "bits_8bits.png"):
    assert (finished / name).read_bytes().startswith(b"\x89PNG")
  assert list((finished / "events").glob("events.out.tfevents.*"))
  assert codes_of(finished).shape == (NUM_PICTURES, 1)


@pytest.mark.slow
def test_the_hash_network_of_a_run_makes_its_codes(finished):
  encoder = udh_jax.load_encoder(finished / "encoder_8bits")
  assert encoder.about["scores"] == metrics(finished)[0]["mean_average_precision"]
  images = load_dataset(stored_config(finished).data).images
  pictures = np.stack([images[row] for row in range(NUM_PICTURES)])
  agree = np.unpackbits(encoder(pictures) ^ codes_of(finished)).mean()
  assert agree < 0.01  # the sign of an output near 0 depends on the size of the batch


@pytest.mark.slow
def test_scores_are_made_again_without_training_and_by_another_definition(finished, capsys):
  before = metrics(finished)
  ends_well(evaluate.main, f"--workdir={finished}")
  output = capsys.readouterr().out
  assert "psch_8bits: finished before, restored" in output
  assert metrics(finished) == before
  ends_well(evaluate.main, f"--workdir={finished}", "--config.score.at=5")
  assert "mAP@5," in capsys.readouterr().out
  assert "mAP@5 " in metrics(finished)[0]["definition"]
  ends_well(evaluate.main, f"--workdir={finished}", "--set", "score.at=0")
  assert metrics(finished) == before


@pytest.mark.slow
def test_another_length_of_code_uses_the_same_teacher(finished, arguments, capsys):
  ends_well(train.main, *arguments, "--config.bits=16")
  output = capsys.readouterr().out
  assert "cluster_1: finished before, restored" in output
  assert "psch_16bits: step 3/3" in output and "images/s" in output and "left" in output
  assert [entry["bits"] for entry in metrics(finished)] == [8, 16]


@pytest.mark.slow
def test_another_configuration_in_the_same_folder_is_refused(finished, arguments, failing):
  line = failing(train.main, [*arguments, "--config.cluster.num_clusters=5"])
  assert line.startswith("error: Stage cluster_1")
  assert "cluster.num_clusters=4 (now 5)" in line


@pytest.mark.slow
def test_several_lengths_are_scored_by_one_command(finished, arguments, capsys, failing):
  ends_well(train.main, *arguments, "--config.bits=16")
  before = metrics(finished)
  ends_well(evaluate.main, f"--workdir={finished}", "--bits=8,16", "--config.score.at=5")
  assert [(entry["bits"], entry["at"]) for entry in metrics(finished)] == [(8, 5), (16, 5)]
  ends_well(evaluate.main, f"--workdir={finished}", "--bits=8,16")
  assert metrics(finished) == before
  line = failing(evaluate.main, [f"--workdir={finished}", "--bits=24"])
  assert "_24bits" in line and "is not finished" in line


@pytest.mark.slow
def test_runs_of_several_seeds_are_scored_whole(folder, arguments, capsys, failing):
  workdir = folder / "seeds"
  ends_well(train.main, *arguments[:-1], f"--workdir={workdir}", "--bits=8,16", "--seeds=0,1")
  table = (workdir / "table.md").read_text()
  capsys.readouterr()
  ends_well(evaluate.main, f"--workdir={workdir}", "--config.score.at=5")
  assert "step" not in capsys.readouterr().out
  other = (workdir / "table.md").read_text()
  assert "mAP@ALL\n" in table and "mAP@5\n" in other and "seeds 0, 1" in other
  ends_well(evaluate.main, f"--workdir={workdir}")
  assert (workdir / "table.md").read_text() == table
  for field in ("bits", "seed"):
    line = failing(evaluate.main, [f"--workdir={workdir}", f"--config.{field}=1"])
    assert "choose lengths with --bits" in line and f"{workdir}/seed_0" in line


def test_several_lengths_are_whole_numbers():
  assert flags.numbers("bits", ["8", " 16"]) == [8, 16]
  assert flags.numbers("bits", None) is None
  with pytest.raises(udh_jax.InputError, match="--bits is '8,x'; give comma-separated whole num"):
    flags.numbers("bits", ["8", "x"])


def test_scoring_an_empty_folder_says_what_to_do(tmp_path, failing):
  assert "run train.py first" in failing(evaluate.main, [f"--workdir={tmp_path}"])


@pytest.mark.slow
def test_scoring_names_the_field_that_was_meant(finished, failing):
  line = failing(evaluate.main, [f"--workdir={finished}", "--config.score.att=5"])
  assert "no field score.att; did you mean score.at" in line
