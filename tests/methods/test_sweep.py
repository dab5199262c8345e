import numpy as np
import pytest
from presets import load, shorten_pairs

from udh_jax.errors import InputError
from udh_jax.methods.sweep import sweep


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
  assert "2 seeds" in (tmp_path / "table.md").read_text()
  with pytest.raises(InputError, match="different numbers"):
    sweep(config, tmp_path, bits=(8, 8), seeds=(0,))
