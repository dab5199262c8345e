"""Codes copied between an index and stores."""

import numpy as np
import pytest

from udh_jax.commands import copy
from udh_jax.retrieval import HammingIndex
from udh_jax.stores import open_store


@pytest.fixture
def index(rng, tmp_path):
  codes = rng.integers(0, 256, (300, 2), dtype=np.uint8)
  about = {"encoder": {"digest": "abc", "source": "runs/x"}, "folder": "/pictures", "more": 1}
  columns = {"size": np.arange(300)}
  index = HammingIndex(codes, [f"{i}.jpg" for i in range(300)], about=about, columns=columns)
  index.save(tmp_path / "a.index")
  return index


def same(a, b):
  np.testing.assert_array_equal(a.codes, b.codes)
  assert list(a.names) == list(b.names) and a.num_bits == b.num_bits
  assert a.about["encoder"] == b.about["encoder"]


def test_from_index_to_store_to_store_to_index(index, tmp_path, capsys, failing):
  pytest.importorskip("lancedb")
  first, second = (f"lancedb:{tmp_path / name}" for name in ("one", "two"))
  copy.main(["--from", str(tmp_path / "a.index"), "--store", first, "--table", "t"])
  assert "300 items" in capsys.readouterr().out
  copied = ["--from", first, "--from-table", "t", "--store", second, "--approximate"]
  for _ in range(2):  # what is there is replaced by the same
    copy.main(copied)
  with open_store(second) as store:
    assert store.count() == 300 and store.has_index()
    assert store.about == {"encoder": index.about["encoder"], "folder": "/pictures"}
  copy.main(["--from", second, "--output", str(tmp_path / "b.index")])
  same(HammingIndex.load(tmp_path / "b.index"), index)
  other = HammingIndex(index.codes, index.names, about={"encoder": {"digest": "x", "source": ""}})
  other.save(tmp_path / "other.index")
  assert "another encoder" in failing(
    copy.main, ["--from", str(tmp_path / "other.index"), "--store", second]
  )
  assert "no plan.json" in failing(
    copy.main, ["--from", str(tmp_path), "--output", str(tmp_path / "c.index")]
  )
  assert "--from is not a store" in failing(
    copy.main, ["--from", str(tmp_path / "a.index"), "--from-table", "t", "--store", second]
  )
  assert "no table of codes" in failing(
    copy.main, ["--from", first, "--output", str(tmp_path / "c.index")]
  )


def test_a_file_that_is_no_index_is_not_replaced(index, tmp_path, failing):
  photo, output = tmp_path / "photo.jpg", tmp_path / "c.index"
  photo.write_bytes(b"a picture")
  line = failing(copy.main, ["--from", str(tmp_path / "a.index"), "--output", str(photo)])
  assert "photo.jpg is there and is not an index" in line
  assert photo.read_bytes() == b"a picture"
  for _ in range(2):  # an index is replaced
    copy.main(["--from", str(tmp_path / "a.index"), "--output", str(output)])
  same(HammingIndex.load(output), index)
