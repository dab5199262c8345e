"""Codes copied between an index and stores."""

import numpy as np
import pytest
from PIL import Image

from udh_jax.commands import copy, encode
from udh_jax.retrieval import HammingIndex
from udh_jax.stores import create_store, open_store


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


def test_files_are_known_where_an_index_knew_them(small_encoder, rng, tmp_path, capsys):
  pytest.importorskip("lancedb")
  folder, encoder = tmp_path / "pictures", str(tmp_path / "e")
  folder.mkdir()
  for i in range(9):
    Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(folder / f"{i}.png")
  small_encoder(image_size=8, picture_size=8).save(encoder)
  first, second, plain = (f"lancedb:{tmp_path / name}" for name in ("one", "two", "plain"))
  a, b = str(tmp_path / "a.index"), str(tmp_path / "b.index")
  made = ["--encoder", encoder, "--images", str(folder)]
  encode.main([*made, "--output", a])
  copy.main(["--from", a, "--store", first])
  copy.main(["--from", first, "--output", b])
  copy.main(["--from", b, "--store", second])
  (folder / "0.png").write_bytes((folder / "1.png").read_bytes())
  for store in (first, second):
    capsys.readouterr()
    encode.main([*made, "--store", store, "--update"])
    assert "9 items; 1 of 9 pictures were encoded, 0 items removed" in capsys.readouterr().out
  # A table that is there need not have the columns; an index that knows no files makes none.
  about = HammingIndex.load(a).about
  create_store(plain, num_bits=12, about=about, columns={"label": "text"}).close()
  copy.main(["--from", a, "--store", plain])
  copy.main(["--from", plain, "--output", b])
  copy.main(["--from", b, "--store", second, "--table", "bare"])
  with open_store(plain) as store, open_store(second, table="bare") as bare:
    assert store.count() == bare.count() == 9 and bare.columns == {}


def test_sizes_that_are_no_numbers_of_bytes_stay_behind(rng, tmp_path):
  pytest.importorskip("lancedb")
  codes = rng.integers(0, 256, (3, 2), dtype=np.uint8)
  columns = {"size": np.full((3, 2), 7), "mtime": np.array([0.5, 1, 2])}
  HammingIndex(codes, ["a", "b", "c"], columns=columns).save(tmp_path / "own.index")
  location = f"lancedb:{tmp_path / 'own'}"
  copy.main(["--from", str(tmp_path / "own.index"), "--store", location])
  with open_store(location) as store:
    assert store.count() == 3 and store.columns == {}


def test_a_file_that_is_no_index_is_not_replaced(index, tmp_path, failing):
  photo, output = tmp_path / "photo.jpg", tmp_path / "c.index"
  photo.write_bytes(b"a picture")
  line = failing(copy.main, ["--from", str(tmp_path / "a.index"), "--output", str(photo)])
  assert "photo.jpg is there and is not an index" in line
  assert photo.read_bytes() == b"a picture"
  for _ in range(2):  # an index is replaced
    copy.main(["--from", str(tmp_path / "a.index"), "--output", str(output)])
  same(HammingIndex.load(output), index)
