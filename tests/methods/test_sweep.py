import numpy as np
import pytest
from presets import load, shorten_pairs

from udh_jax.errors import InputError
from udh_jax.methods.sweep import sweep, table


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
  # Entries of other lengths and of another definition are in the same file.
  config.score.at = 7
  sweep(config, tmp_path, bits=(12,), seeds=(0,))
  text = (tmp_path / "table.md").read_text()
  assert "mAP@7 " in text and "training seed 0" in text
  with pytest.raises(InputError, match="different numbers"):
    sweep(config, tmp_path, bits=(8, 8), seeds=(0,))


def test_a_row_that_is_not_at_every_length_has_empty_cells():
  found = {"DUDCH": {8: [0.5, 0.7], 12: [0.7, 0.9]}, "ITQ": {8: [0.25, 0.25]}}
  header, _, *rows = table(found, (8, 12)).splitlines()
  cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in (header, *rows)]
  assert cells[0] == ["method", "8 bits", "12 bits", "mean"]
  assert cells[1] == ["DUDCH", "0.600 ± 0.141", "0.800 ± 0.141", "0.700 ± 0.141"]
  assert cells[2] == ["ITQ", "0.250 ± 0.000", "", ""]


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
