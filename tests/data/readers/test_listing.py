import numpy as np
import pytest

from udh_jax.data.readers import nus_wide
from udh_jax.errors import InputError


@pytest.mark.parametrize("block", [1, 7, 64, 4 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_indicators_are_read_across_blocks(rng, tmp_path, monkeypatch, block, end):
  monkeypatch.setattr(nus_wide, "_BLOCK_BYTES", block)
  values = rng.random((9, 5)) < 0.5
  lines = ["\t".join(f"{value:d}" for value in row) + "\t" for row in values]
  lines.insert(4, "")
  path = tmp_path / "tags.txt"
  path.write_bytes(((end or "\n").join(lines) + end).encode())
  kept = rng.random(9) < 0.6
  found = nus_wide.read_indicators(path, kept, "list.txt")
  assert found.dtype == bool and found.tolist() == values[kept].tolist()
  for other in (8, 10):
    with pytest.raises(InputError, match=rf"tags\.txt has 9 lines, but list\.txt names {other} "):
      nus_wide.read_indicators(path, np.ones(other, bool), "list.txt")


@pytest.mark.parametrize("block", [3, 4 << 20])
@pytest.mark.parametrize("bad", ["0 1 2", "0 1", "0 1 0 1", "01 0", "0 10 1", "0 -1 1", "0 1 x"])
def test_a_line_that_is_not_zeros_and_ones_is_named(tmp_path, monkeypatch, bad, block):
  monkeypatch.setattr(nus_wide, "_BLOCK_BYTES", block)
  (tmp_path / "a.txt").write_text(f"0 1 1\n0 0 1\n\n{bad}\n1 1 1\n")
  with pytest.raises(InputError, match=r"a\.txt line 4 is not 3 values 0 or 1"):
    nus_wide.read_indicators(tmp_path / "a.txt", np.ones(4, bool), "list.txt")
