"""A folder of pictures in, an index out: its outputs, its batches and what is noted in it."""

import os

import pytest

from udh_jax.encoders.folder import encode_folder
from udh_jax.errors import InputError
from udh_jax.retrieval.index import HammingIndex


@pytest.mark.parametrize(
  ("count", "batch_size", "expected"),
  [(1, 20_000, [1]), (13, 12, [7, 7]), (12, 12, [12]), (5, 2, [2, 2, 2]), (3, 1, [1, 1, 1])],
)
def test_no_batch_is_larger_than_the_folder_needs(
  spy, save_pictures, tmp_path, count, batch_size, expected
):
  folder = save_pictures(*(f"{i}.png" for i in range(count)))
  index = encode_folder(spy, folder, tmp_path / "a.index", batch_size=batch_size)
  assert spy.sizes == expected and len(index) == count


def test_an_output_that_cannot_be_written_is_refused_before_the_work(spy, save_pictures, tmp_path):
  folder = save_pictures("1.png")
  (tmp_path / "there").mkdir()
  (tmp_path / "notes.txt").write_text("my notes")
  os.mkfifo(tmp_path / "pipe")
  for output, words in {
    "there": "is a folder",
    "none/a.index": "does not exist",
    "pipe": "no regular file",
    "pictures/1.png": "is there and is no index",
    "notes.txt": "is there and is no index",
    "a" * 255: "cannot be written",  # there is no room for .partial
  }.items():
    with pytest.raises(InputError, match=words):
      encode_folder(spy, folder, tmp_path / output)
  assert spy.sizes == []
  assert (tmp_path / "notes.txt").read_text() == "my notes"
  encode_folder(spy, folder, tmp_path / "a.index")
  encode_folder(spy, folder, tmp_path / "a.index")  # an older index is replaced
  assert len(spy.sizes) == 2


def test_paths_are_noted_from_the_root_on(spy, save_pictures, tmp_path, monkeypatch):
  save_pictures("1.png")
  monkeypatch.chdir(tmp_path)
  encode_folder(spy, "pictures", "a.index", source="run/encoder")
  about = HammingIndex.load("a.index").about
  assert about["encoder"]["source"] == str(tmp_path / "run" / "encoder")
  assert about["folder"] == str(tmp_path / "pictures")
  for source in ("", "hf-hub:someone/codes"):
    encode_folder(spy, "pictures", "a.index", source=source)
    assert HammingIndex.load("a.index").about["encoder"]["source"] == source


def test_any_name_is_kept_in_the_index_and_shown_on_one_line(spy, save_pictures, tmp_path, capsys):
  names = ["図.png", "a\nb.png", "\x1b[31m.png", "\udcff.png", "a$_$b.png", " .png", "-k.png"]
  folder = save_pictures(*names)
  (folder / "x\n\x1b.jpg").write_bytes(b"no picture")
  os.mkfifo(folder / "pipe.jpg")
  index = encode_folder(spy, folder, tmp_path / "a.index")
  assert index.names == sorted(names)
  assert HammingIndex.load(tmp_path / "a.index").names == sorted(names)
  assert "2 of 9 files cannot be read" in capsys.readouterr().out
  assert (tmp_path / "a.index.unreadable.txt").read_text().splitlines() == [
    "pipe.jpg: it is a named pipe",
    r"x\n\x1b.jpg: it is no picture of a known format, or its beginning is damaged",
  ]
