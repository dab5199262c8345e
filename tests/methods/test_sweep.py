import json

import numpy as np
import pytest
from presets import load, shorten_pairs

from udh_jax.errors import InputError
from udh_jax.methods.run import stored_config
from udh_jax.methods.sweep import is_sweep, score_again, sweep


@pytest.mark.slow
def test_several_lengths_and_seeds_make_one_table(made, tmp_path):
  config = shorten_pairs(load("pair_contrast", "wikipedia"), made)
  config.contrast.epochs = 2
  found = sweep(config, tmp_path, bits=(8, 12), seeds=(0, 1))
  values = found["Pair contrast, image→text"]
  assert set(values) == {8, 12} and all(len(v) == 2 for v in values.values())
  row = next(
    line for line in (tmp_path / "table.md").read_text().splitlines() if "image→text" in line
  )
  mean, spread = np.mean(values[8]), np.std(values[8], ddof=1)
  assert f"{mean:.3f} ± {spread:.3f}" in row
  assert "training seeds 0, 1: mean ± sample standard" in (tmp_path / "table.md").read_text()
  # Scored again by another definition: no stage is run, and the tables are of the other one.
  assert is_sweep(tmp_path) and not is_sweep(tmp_path / "seed_0")
  stages = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.json")}
  changed = stored_config(tmp_path / "seed_1")
  changed.score.at = 5
  again = score_again(tmp_path, changed)
  assert stages == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("output.json")}
  assert again.keys() == found.keys() and again != found
  stored = json.loads((tmp_path / "table.json").read_text())
  assert stored["map"]["Pair contrast, image→text"]["8"] == again["Pair contrast, image→text"][8]
  assert stored["definition"].startswith("mAP@5 ")
  for seed in (0, 1):  # each by its own codes
    entries = json.loads((tmp_path / f"seed_{seed}" / "metrics.json").read_text())
    assert [(entry["bits"], entry["at"]) for entry in entries] == [(8, 5), (12, 5)]
    assert f"training seed {seed}" in entries[0]["definition"]
  assert set(score_again(tmp_path, bits=(12,))["Pair contrast, image→text"]) == {12}
  # Entries of other lengths and of another definition are in the same file.
  config.score.at = 7
  sweep(config, tmp_path, bits=(12,), seeds=(0,))
  text = (tmp_path / "table.md").read_text()
  assert "mAP@7 " in text and "training seed 0" in text
  with pytest.raises(InputError, match="different numbers"):
    sweep(config, tmp_path, bits=(8, 8), seeds=(0,))


def test_every_length_is_checked_before_the_first_is_trained(made, tmp_path, monkeypatch):
  config = shorten_pairs(load("pair_contrast", "wikipedia"), made)
  monkeypatch.setattr("udh_jax.methods.sweep.train", lambda *_, **__: pytest.fail("it was trained"))
  with pytest.raises(InputError, match="bits is -1"):
    sweep(config, tmp_path, bits=(8, -1), seeds=(0,))


@pytest.mark.slow
def test_what_does_not_depend_on_the_seed_is_made_once(tmp_path, capsys, small_weights):
  config = load("bihalf", "digits")
  config.teacher.weights = small_weights
  config.bihalf.steps = 3
  sweep(config, tmp_path, bits=(8,), seeds=(0, 1))
  first, second = capsys.readouterr().out.split("[devices]")[1:]
  assert "features_1: done" in first and "features_1: finished before" in second
  assert "bihalf_8bits: done" in first and "bihalf_8bits: done" in second
