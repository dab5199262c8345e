"""DHIH, PSCH and SSDH, shortened, on scikit-learn's digits."""

import json
import pathlib
import re
import shutil
from types import SimpleNamespace

import pytest
from presets import load

from udh_jax.errors import InputError
from udh_jax.methods.registry import make_plan
from udh_jax.methods.run import train

RESULTS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "results.md"
BASELINES = ["ITQ", "PCA + rotation", "LSH"]


def shortened(name, weights):
  """Two steps, and the same splits for all, so that they share teacher and features."""
  config = load(name, "digits")
  config.bits = 12
  config.teacher.weights = weights
  config.data.update(num_train=500, train_draw="balanced")
  training = config[{"dhih": "supervised"}.get(name, name)]
  training.update(steps=2, batch_size=12)
  if name == "psch":
    config.cluster.num_restarts = 2
    config.psch.unsure = "structure"
  return config


@pytest.fixture(scope="module")
def first(small_weights, tmp_path_factory):
  """Scores and the work directory of a run of DHIH."""
  workdir = tmp_path_factory.mktemp("dhih") / "run"
  return train(shortened("dhih", small_weights), workdir), workdir


@pytest.mark.parametrize("data", ["cifar10", "folder"])
def test_a_frozen_preset_has_what_the_trials_chose_for_each_method(data):
  rows = re.findall(
    r"^\| (DHIH, a_softmax|GreedyHash|OrthoHash|CSQ|softmax)(?: \(chosen\))? \| (.+?) \|",
    RESULTS.read_text().partition("How the settings were chosen")[2],
    re.MULTILINE,
  )
  chosen = {}
  for method, settings in rows:
    chosen.setdefault(method, settings)  # the first of DHIH's is the one chosen
  assert len(chosen) == 5
  for method, settings in chosen.items():
    name = "" if method.startswith("DHIH") else f"_{method.lower()}"
    config = load("dhih", f"{data}_frozen{name}")
    losses, training = settings.split("; ")
    rate, steps = training.removesuffix(" steps").split(", ")
    assert config.supervised.trained == "head"
    assert config.supervised.head_learning_rate == float(rate)
    assert config.supervised.steps == int(steps.replace(",", ""))
    found = dict(part.rsplit(" ", 1) for part in losses.split(", "))
    assert config.supervised.batch_size == int(found.get("batch", 64))
    if "weight" in found:
      assert config.loss.quantisation_weight == float(found["weight"])
    if "m" in found:
      assert config.loss.margin == float(found["m"])
    if "rate" in found:
      assert config.loss.annealing_rate == float(found["rate"])
      assert config.loss.annealing_least == float(found["least"])


@pytest.mark.slow
def test_dhih_is_trained_and_scored_beside_the_baselines(first):
  scores, workdir = first
  assert list(scores) == ["DHIH", *BASELINES]
  assert all(0 < value < 1 for value in scores.values())
  splits = json.loads((workdir / "splits.json").read_text())
  assert len(splits["train"]) == 500
  assert (workdir / "encoder_12bits" / "config.json").exists()


@pytest.mark.slow
def test_psch_is_trained_and_shows_where_it_looks(small_weights, tmp_path):
  workdir = tmp_path / "run"
  scores = train(shortened("psch", small_weights), workdir)
  assert list(scores) == ["PSCH", *BASELINES]
  purity = json.loads((workdir / "metrics.json").read_text())[0]["purity"]
  assert len(purity) == 1 and 0.1 < purity[0] < 1
  assert (workdir / "attention.png").read_bytes().startswith(b"\x89PNG")
  assert "Attention" in (workdir / "report_12bits.html").read_text()


@pytest.mark.slow
def test_ssdh_is_trained_and_scored_beside_the_baselines(small_weights, first, tmp_path, capsys):
  workdir = tmp_path / "run"
  for stage in ("teacher", "features_1", "baselines_12bits"):
    shutil.copytree(first[1] / "stages" / stage, workdir / "stages" / stage)
  assert list(train(shortened("ssdh", small_weights), workdir)) == ["SSDH", *BASELINES]
  assert "features_1: finished before, restored" in capsys.readouterr().out


def test_a_number_of_parts_that_does_not_divide_the_channels_is_refused_at_once(tmp_path):
  config = shortened("psch", "")
  config.parts.groups = 9
  with pytest.raises(InputError, match="128 channels cannot be split into 9"):
    train(config, tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_images_without_labels_are_refused_before_anything_runs():
  config = shortened("dhih", "")
  dataset = SimpleNamespace(name="folder", labels=None)
  with pytest.raises(InputError, match="folder has no labels, and a supervised method learns from"):
    make_plan(config).check(dataset)
