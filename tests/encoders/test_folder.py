"""An index follows its folder: what is encoded, kept and forgotten, and what a kill leaves."""

import errno
import io
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from udh_jax.commands import encode, search
from udh_jax.data import pictures as pictures_module
from udh_jax.duplicates.looks import look_of
from udh_jax.encoders import folder as folder_module
from udh_jax.encoders.folder import encode_folder
from udh_jax.encoders.image import Encoder
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex
from udh_jax.retrieval.index import IndexWriter

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(small_encoder):
  return small_encoder()


class Counting:
  """An encoder that notes what it is given, and may be stopped."""

  def __init__(self, encoder, stop_at=None):
    self.encoder, self.about, self.digest = encoder, encoder.about, encoder.digest
    self.pictures, self.calls, self.stop_at = 0, 0, stop_at

  def __call__(self, images):
    self.calls += 1
    if self.calls == self.stop_at:
      raise KeyboardInterrupt
    self.shape = images.shape
    self.pictures += int((images.reshape(len(images), -1) != 0).any(axis=1).sum())
    return self.encoder(images)


@pytest.fixture
def encoder(made):
  return Counting(made)


def picture(path, seed, size=(60, 48)):
  path.parent.mkdir(parents=True, exist_ok=True)
  small = np.random.default_rng(seed).integers(1, 256, (5, 4, 3), dtype=np.uint8)
  Image.fromarray(small).resize(size, Image.BICUBIC).save(path)


@pytest.fixture
def pictures(tmp_path):
  folder = tmp_path / "pictures"
  for i in range(12):
    picture(folder / f"group {i % 3}" / f"{i}.{('png', 'jpg')[i % 2]}", i, (60, 40 + i))
  (folder / "group 0" / "broken.jpg").write_bytes(b"no picture")
  return folder


def rows_of(index):
  """Everything that is known of each item but its time of change, by name."""
  names = ["size", "digest", "width", "height", "look"]
  columns = [index.columns[name] for name in names]
  items = zip(index.names, index.codes, *columns, strict=True)
  return {name: [np.asarray(value).tolist() for value in row] for name, *row in items}


def test_columns_say_what_the_files_are(encoder, pictures, tmp_path):
  index = encode_folder(encoder, pictures, tmp_path / "a")
  assert list(index.names) == sorted(index.names)
  for i, name in enumerate(index.names):
    path = pictures / name
    assert index.columns["size"][i] == path.stat().st_size
    assert index.columns["mtime"][i] == path.stat().st_mtime_ns
    with Image.open(path) as image:
      assert (index.columns["width"][i], index.columns["height"][i]) == image.size
      np.testing.assert_array_equal(index.columns["look"][i], look_of(image))
  assert index.encoder_digest == encoder.digest


def test_an_update_gives_what_encoding_anew_gives(encoder, pictures, tmp_path, capsys):
  output = tmp_path / "a"
  encode_folder(encoder, pictures, output)
  before = encoder.pictures
  picture(pictures / "new.png", 100)
  picture(pictures / "group 1" / "4.png", 101)  # changed
  (pictures / "group 2" / "2.png").unlink()
  shutil.move(pictures / "group 0" / "0.png", pictures / "moved.png")
  shutil.copy2(pictures / "group 1" / "1.jpg", pictures / "x.jpg")  # swapped with another
  shutil.copy2(pictures / "group 1" / "7.jpg", pictures / "group 1" / "1.jpg")
  shutil.move(pictures / "x.jpg", pictures / "group 1" / "7.jpg")
  os.utime(pictures / "group 2" / "5.jpg", ns=(5, 5))
  capsys.readouterr()
  updated = encode_folder(encoder, pictures, output, update=True)
  out = capsys.readouterr().out
  assert "6 of 13 pictures are unchanged" in out
  assert "(1 new, 1 changed, 3 moved, 1 touched, 2 removed)" in out
  assert encoder.pictures - before == 2
  anew = encode_folder(encoder, pictures, tmp_path / "b")
  assert rows_of(updated) == rows_of(anew)
  times = dict(zip(anew.names, anew.columns["mtime"].tolist(), strict=True))
  assert dict(zip(updated.names, updated.columns["mtime"].tolist(), strict=True)) == times
  # Once more, and nothing is read or written.
  state = output.read_bytes()
  before = encoder.calls
  encode_folder(encoder, pictures, output, update=True)
  assert "nothing new" in capsys.readouterr().out
  assert output.read_bytes() == state
  assert encoder.calls == before


def test_unchanged_files_are_not_read_unless_told_to(encoder, pictures, tmp_path, monkeypatch):
  output = tmp_path / "a"
  encode_folder(encoder, pictures, output)
  file = pictures / "group 1" / "4.png"
  status, size = file.stat(), file.stat().st_size
  for seed in range(200, 300):  # another picture of the same size and time of change
    picture(file, seed, (60, 44))
    if file.stat().st_size == size:
      break
  else:
    file.write_bytes(file.read_bytes()[:size].ljust(size, b"\0"))
  os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
  read = []
  look = folder_module.look_into
  monkeypatch.setattr(folder_module, "look_into", lambda *a: read.append(a[1]) or look(*a))
  before = rows_of(HammingIndex.load(output))
  assert rows_of(encode_folder(encoder, pictures, output, update=True)) == before
  assert read == ["group 0/broken.jpg"]
  calls = encoder.calls
  after = rows_of(encode_folder(encoder, pictures, output, update=True, verify=True))
  assert len(read) == 14
  assert {name for name in before if before[name] != after.get(name)} == {"group 1/4.png"}
  assert encoder.calls - calls <= 1


def test_files_of_equal_content_are_no_changes(encoder, pictures, tmp_path, capsys):
  shutil.copy(pictures / "group 1" / "4.png", pictures / "copy.png")
  output = tmp_path / "a"
  names = list(encode_folder(encoder, pictures, output).names)
  capsys.readouterr()
  for _ in range(2):
    again = encode_folder(encoder, pictures, output, update=True, verify=True)
    assert list(again.names) == names
    assert "moved" not in capsys.readouterr().out.replace("0 moved", "")


def test_a_file_that_cannot_be_read_any_more_goes(encoder, pictures, tmp_path):
  output = tmp_path / "a"
  encode_folder(encoder, pictures, output)
  (pictures / "group 1" / "4.png").write_bytes(b"cut short")
  os.mkfifo(pictures / "pipe.png")
  index = encode_folder(encoder, pictures, output, update=True)
  assert len(index) == 11
  assert "group 1/4.png" not in index.names
  lines = (tmp_path / "a.unreadable.txt").read_text().splitlines()
  assert [line.split(":")[0] for line in lines] == [
    "group 0/broken.jpg",
    "group 1/4.png",
    "pipe.png",
  ]
  picture(pictures / "group 1" / "4.png", 4)
  picture(pictures / "group 0" / "broken.jpg", 4)
  (pictures / "pipe.png").unlink()
  assert len(encode_folder(encoder, pictures, output, update=True)) == 13
  assert not (tmp_path / "a.unreadable.txt").exists()


def failing_with(number, *names):
  """Stands where `open` does for pictures: the files of these names, or all, cannot be read."""

  def open_one(path):
    if not names or any(os.fspath(path).endswith(name) for name in names):
      raise OSError(number, os.strerror(number), path)
    return pictures_module.open_regular(path)

  return open_one


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_file_out_of_reach_keeps_its_item(
  encoder, pictures, tmp_path, monkeypatch, capsys, number
):
  output = tmp_path / "a"
  before = rows_of(encode_folder(encoder, pictures, output))
  os.utime(pictures / "group 2" / "5.jpg", ns=(5, 5))
  monkeypatch.setattr(folder_module, "open_regular", failing_with(number, "/5.jpg"))
  assert rows_of(encode_folder(encoder, pictures, output, update=True)) == before
  assert "(1 kept unread)" in capsys.readouterr().out
  assert f"5.jpg: {os.strerror(number)}" in (tmp_path / "a.unreadable.txt").read_text()
  monkeypatch.setattr(folder_module, "open_regular", failing_with(number))
  assert rows_of(encode_folder(encoder, pictures, output, update=True, verify=True)) == before
  assert "(12 kept unread)" in capsys.readouterr().out
  monkeypatch.undo()
  encode_folder(encoder, pictures, output, update=True)
  assert "(1 touched)" in capsys.readouterr().out


def test_a_disk_that_fails_while_a_picture_is_decoded_is_no_damage(
  encoder, pictures, tmp_path, monkeypatch
):
  class Failing(io.BufferedReader):
    def seek(self, *place):
      monkeypatch.setattr(Failing, "read", read)
      return super().seek(*place)

  def read(self, *_):
    raise OSError(errno.EIO, os.strerror(errno.EIO))

  output = tmp_path / "a"
  before = rows_of(encode_folder(encoder, pictures, output))
  picture(pictures / "group 1" / "4.png", 101)
  monkeypatch.setattr(folder_module, "open_regular", lambda path: Failing(io.FileIO(path)))
  assert rows_of(encode_folder(encoder, pictures, output, update=True)) == before
  assert "4.png: Input/output error" in (tmp_path / "a.unreadable.txt").read_text()


def test_nothing_is_taken_away_where_nothing_would_be_left(encoder, pictures, tmp_path, capsys):
  output = tmp_path / "a"
  encode_folder(encoder, pictures, output)
  state = output.read_bytes()
  files = sorted(path for path in pictures.rglob("*.*") if path.is_file())
  for file in files[:-3]:
    file.write_bytes(b"no picture")
  capsys.readouterr()
  assert len(encode_folder(encoder, pictures, output, update=True)) == 3
  assert "(9 removed as unreadable)" in capsys.readouterr().out
  output.write_bytes(state)
  for file in files[-3:-1]:
    file.write_bytes(b"no picture")
  files[-1].unlink()
  with pytest.raises(InputError, match="None of the 12 pictures"):
    encode_folder(encoder, pictures, output, update=True)
  assert output.read_bytes() == state


def test_links_that_lead_nowhere_are_listed_and_keep_their_items(
  encoder, pictures, tmp_path, capsys
):
  output, links = tmp_path / "a", tmp_path / "links"
  links.mkdir()
  for i in (1, 3, 5):
    (links / f"{i}.jpg").symlink_to(pictures / f"group {i % 3}" / f"{i}.jpg")
  (links / "never.jpg").symlink_to("nowhere.jpg")
  before = rows_of(encode_folder(encoder, links, output))
  assert len(before) == 3
  assert "1 of 4 files cannot be read" in capsys.readouterr().out
  assert (tmp_path / "a.unreadable.txt").read_text().startswith("never.jpg: No such file")
  pictures.rename(tmp_path / "away")
  assert rows_of(encode_folder(encoder, links, output, update=True)) == before
  assert "(3 kept unread)" in capsys.readouterr().out
  with pytest.raises(InputError, match="None of the 4 pictures"):
    encode_folder(encoder, links, tmp_path / "b")
  (links / "1.jpg").unlink()
  assert len(encode_folder(encoder, links, output, update=True)) == 2


def test_a_folder_with_few_of_the_names_is_another_folder(made, tmp_path):
  """Cameras call their pictures alike."""
  mine, other, output = tmp_path / "mine", tmp_path / "other", tmp_path / "a"
  for i in range(10):
    picture(mine / f"IMG_{i:04}.jpg", i)
    picture(other / f"IMG_{i + 6:04}.jpg", 100 + i)
  encode_folder(made, mine, output)
  state = output.read_bytes()
  with pytest.raises(InputError, match=r"other has 4 of the 10 pictures in the index, .*anew"):
    encode_folder(made, other, output, update=True)
  assert output.read_bytes() == state
  picture(other / "IMG_0005.jpg", 5)
  assert len(encode_folder(made, other, output, update=True)) == 11
  for i in range(5, 14):  # of its own folder most may go
    (other / f"IMG_{i:04}.jpg").unlink()
  assert len(encode_folder(made, other, output, update=True)) == 2


def test_files_of_other_kinds_are_told(made, pictures, tmp_path, capsys):
  for name in ("1.heic", "2.heic", "1.xmp"):
    (pictures / name).write_bytes(b"")
  for update in (False, True):
    encode_folder(made, pictures, tmp_path / "a", update=update)
    assert "2 files of other kinds were passed over (.heic 2)." in capsys.readouterr().out


def test_a_stopped_encoding_goes_on_where_it_saved(made, pictures, tmp_path, monkeypatch, capsys):
  whole = encode_folder(made, pictures, tmp_path / "whole", batch_size=4)
  monkeypatch.setattr(folder_module, "SAVE_EVERY", 0.0)
  output, stopping = tmp_path / "a", Counting(made, stop_at=3)
  with pytest.raises(KeyboardInterrupt):
    encode_folder(stopping, pictures, output, batch_size=4)
  assert not output.exists()
  capsys.readouterr()
  again = Counting(made)
  encode_folder(again, pictures, output, batch_size=4)
  assert "7 of 13 pictures were done before" in capsys.readouterr().out
  assert again.pictures == 5
  # What is left is what an encoding that nobody stopped leaves, byte for byte.
  assert output.read_bytes() == (tmp_path / "whole").read_bytes()
  assert len(whole) == 12
  assert not (tmp_path / "a.partial").exists()


def test_a_stopped_update_keeps_what_was_done(made, pictures, tmp_path, monkeypatch):
  output = tmp_path / "a"
  encode_folder(made, pictures, output, batch_size=4)
  for i in range(9):
    picture(pictures / f"new {i}.png", 300 + i)
  (pictures / "group 1" / "4.png").unlink()
  monkeypatch.setattr(folder_module, "SAVE_EVERY", 0.0)
  with pytest.raises(KeyboardInterrupt):
    encode_folder(Counting(made, stop_at=3), pictures, output, batch_size=4, update=True)
  index = HammingIndex.load(output)
  assert len(index) == 12 + 7  # the unreadable one is in the first batch
  assert "group 1/4.png" in index.names
  again = Counting(made)
  found = encode_folder(again, pictures, output, batch_size=4, update=True)
  assert again.pictures == 2
  assert rows_of(found) == rows_of(encode_folder(made, pictures, tmp_path / "b"))


def test_another_encoder_is_refused_and_takes_up_only_its_own_work(
  made, pictures, tmp_path, capsys
):
  output = tmp_path / "a"
  other = Encoder(made.variables, made.about | {"image_size": 20})
  old = encode_folder(made, pictures, output)
  with pytest.raises(InputError, match=r"was made by another encoder .* without --update"):
    encode_folder(other, pictures, output, update=True)
  assert rows_of(HammingIndex.load(output)) == rows_of(old)
  encode_folder(made, pictures, tmp_path / "a.partial")
  capsys.readouterr()
  new = encode_folder(other, pictures, output)
  assert "starting anew" in capsys.readouterr().out
  assert new.encoder_digest == other.digest


def test_what_a_running_encoding_has_done_is_left_to_it(made, pictures, tmp_path, monkeypatch):
  """A second command, with another encoder or folder or the same, while the first one runs."""
  output, partial = tmp_path / "a", tmp_path / "a.partial"
  monkeypatch.setattr(folder_module, "SAVE_EVERY", 0.0)
  with pytest.raises(KeyboardInterrupt):
    encode_folder(Counting(made, stop_at=3), pictures, output, batch_size=4)
  before = partial.read_bytes()
  other = Encoder(made.variables, made.about | {"image_size": 20})
  picture(tmp_path / "elsewhere" / "1.png", 1)
  with IndexWriter(partial):
    for encoder, folder in ((other, pictures), (made, tmp_path / "elsewhere"), (made, pictures)):
      with pytest.raises(InputError, match=r"Another process is writing to .*a\.partial") as caught:
        encode_folder(encoder, folder, output)
      assert "\n" not in str(caught.value)
      assert partial.read_bytes() == before
  again = Counting(made)
  encode_folder(again, pictures, output, batch_size=4)
  assert again.pictures == 5


def test_a_damaged_beginning_is_written_anew(made, pictures, tmp_path, capsys):
  (tmp_path / "a.partial").write_bytes(b"UDHINDEX and no more")
  assert len(encode_folder(made, pictures, tmp_path / "a")) == 12
  assert "Starting anew" in capsys.readouterr().out
  assert not (tmp_path / "a.partial").exists()


def test_an_output_that_another_process_writes_to_is_not_replaced(made, pictures, tmp_path):
  output = tmp_path / "a"
  encode_folder(made, pictures, output)
  before = output.read_bytes()
  picture(pictures / "new.png", 100)
  for update in (False, True):
    with (
      IndexWriter(output),
      pytest.raises(InputError, match=r"Another process is writing to .*a \("),
    ):
      encode_folder(made, pictures, output, update=update)
    assert output.read_bytes() == before
  again = Counting(made)  # nothing that was done is done again
  assert len(encode_folder(again, pictures, output)) == 13
  assert again.calls == 0


def test_a_link_stays_a_link_and_what_is_private_stays_private(made, pictures, tmp_path):
  (tmp_path / "far").mkdir()
  real, link = tmp_path / "far" / "real", tmp_path / "link"
  link.symlink_to(real)
  for count in (12, 13):
    assert len(encode_folder(made, pictures, link)) == count
    assert link.is_symlink() and len(HammingIndex.load(real)) == count
    picture(pictures / f"new {count}.png", count)
    real.chmod(0o600)
  encode_folder(made, pictures, link)
  assert stat.S_IMODE(real.stat().st_mode) == 0o600
  picture(pictures / "more.png", 14)
  assert len(encode_folder(made, pictures, link, update=True)) == 15
  assert stat.S_IMODE(real.stat().st_mode) == 0o600
  assert [file.name for file in real.parent.iterdir()] == ["real"]


def test_an_index_that_knows_no_files_is_not_updated(made, pictures, tmp_path):
  about = {"encoder": {"source": "", "digest": made.digest}}
  HammingIndex(np.zeros((1, 2), np.uint8), ["x"], num_bits=12, about=about).save(tmp_path / "a")
  with pytest.raises(InputError, match="does not say which files it was made of"):
    encode_folder(made, pictures, tmp_path / "a", update=True)


def test_a_folder_that_vanished_empties_no_index(made, pictures, tmp_path):
  output = tmp_path / "a"
  encode_folder(made, pictures, output)
  empty, other = tmp_path / "empty", tmp_path / "other"
  empty.mkdir()
  picture(other / "q.png", 1)
  for folder, words in (
    (empty, "is a disk not mounted"),
    (other, r"other has 0 of the 12 pictures in the index, which is of .*; give that folder"),
    (tmp_path / "none", "is not a folder"),
  ):
    with pytest.raises(InputError, match=words):
      encode_folder(made, folder, output, update=True)
  assert len(HammingIndex.load(output)) == 12
  shutil.move(pictures, tmp_path / "elsewhere")  # the collection itself was moved
  assert len(encode_folder(Counting(made, 1), tmp_path / "elsewhere", output, update=True)) == 12


def test_few_pictures_are_no_large_batch(encoder, tmp_path):
  picture(tmp_path / "p" / "1.png", 1)
  encode_folder(encoder, tmp_path / "p", tmp_path / "a", batch_size=20_000)
  assert encoder.shape[0] <= 64


def test_nothing_is_encoded_for_an_output_that_cannot_be(encoder, pictures, tmp_path):
  for output, words in ((tmp_path, "is a folder"), (tmp_path / "x" / "a", "does not exist")):
    with pytest.raises(InputError, match=words):
      encode_folder(encoder, pictures, output)
  assert encoder.calls == 0


def test_in_three_commands(made, pictures, tmp_path, capsys, failing):
  made.save(tmp_path / "encoder")
  output = f"--output={tmp_path / 'mine.index'}"
  encode.main([f"--encoder={tmp_path / 'encoder'}", f"--images={pictures}", output])
  picture(pictures / "added.png", 500)
  encode.main(["--update", output])  # encoder and folder are noted
  assert "(1 new)" in capsys.readouterr().out
  search.main([f"--index={tmp_path / 'mine.index'}", f"--image={pictures / 'added.png'}", "-k=13"])
  assert "   0  added.png" in capsys.readouterr().out.splitlines()
  assert "--verify is given without" in failing(
    encode.main, [output, "--verify", f"--encoder={tmp_path}", f"--images={pictures}"]
  )
  assert "give --encoder or --workdir" in failing(encode.main, [output])
  assert "give --images" in failing(encode.main, ["--output=/x", "--encoder=/e"])
  line = failing(encode.main, ["--output=/x", "--update", "--encoder=/e"])
  assert "/x is not there, so nothing can be updated" in line


@pytest.mark.parametrize(
  "flag",
  ["--root=/r", "--part-size=3", "--workers=4", "--cpus-per-worker=2", "--gpus-per-worker=2"],
)
@pytest.mark.parametrize("where", ["--store=lancedb:x", "--output=x"])
def test_flags_of_a_cluster_are_refused_without_one(failing, tmp_path, monkeypatch, flag, where):
  monkeypatch.chdir(tmp_path)
  line = failing(encode.main, ["--encoder=e", "--images=p", where, flag])
  assert f"{flag.partition('=')[0]} is given without --ray" in line


def test_an_index_without_the_place_of_its_encoder_is_refused_in_one_line(failing, tmp_path):
  about = {"encoder": {"digest": "0" * 64}, "folder": "/x"}
  codes = np.zeros((2, 2), np.uint8)
  HammingIndex(codes, ["a", "b"], about=about).save(tmp_path / "a")
  line = failing(encode.main, ["--update", f"--output={tmp_path / 'a'}"])
  assert "note on its encoder" in line and "source" in line


def test_a_table_that_names_no_file_is_refused_before_the_work(
  made, pictures, tmp_path, failing, monkeypatch
):
  made.save(tmp_path / "encoder")
  monkeypatch.setattr(encode, "create_store", lambda *_, **__: pytest.fail("a store was made"))
  store = ["--store", f"lancedb:{tmp_path / 'store'}", "--table=."]
  given = [f"--encoder={tmp_path / 'encoder'}", f"--images={pictures}", *store]
  assert "--table is '.'" in failing(encode.main, given)
  monkeypatch.chdir(tmp_path)
  (tmp_path / "codes.unreadable.txt").mkdir()
  line = failing(encode.main, [*given[:-1], "--table=codes"])
  assert f"{tmp_path / 'codes.unreadable.txt'}, which cannot be written" in line


@pytest.mark.parametrize(
  ("count", "batch_size", "expected"),
  [(1, 20_000, [1]), (13, 12, [12, 12]), (12, 12, [12]), (5, 2, [2, 2, 2]), (3, 1, [1, 1, 1])],
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
    "pipe": "not a regular file",
    "pictures/1.png": "is there and is not an index",
    "notes.txt": "is there and is not an index",
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
    r"x\n\x1b.jpg: it is not a picture of a known format, or its beginning is damaged",
  ]


@pytest.mark.slow
@pytest.mark.long
def test_killed_at_any_moment_the_index_is_whole_and_the_end_the_same(made, tmp_path):
  folder = tmp_path / "pictures"
  for i in range(150):
    picture(folder / f"{i}.jpg", i, (200, 160))
  made.save(tmp_path / "encoder")
  whole = encode_folder(made, folder, tmp_path / "whole", source=str(tmp_path / "encoder"))
  program = (
    "import sys; from udh_jax.encoders import folder; folder.SAVE_EVERY = 0.0; "
    "from udh_jax.commands.encode import main; main(sys.argv[1:])"
  )
  output = tmp_path / "a"

  def killed(arguments, file, enough):
    """Starts the program and kills it once ``file`` has grown by some commits."""
    command = [sys.executable, "-c", program, *arguments, f"--output={output}", "--batch-size=5"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    start = file.stat().st_size if file.exists() else 0
    try:
      while process.poll() is None:
        if file.exists() and file.stat().st_size > start + enough:
          process.send_signal(signal.SIGKILL)
          process.wait()
          return True
        time.sleep(0.001)
      assert process.returncode == 0, process.stdout.read()
      return False
    finally:
      process.kill()
      process.communicate()

  first = [f"--encoder={tmp_path / 'encoder'}", f"--images={folder}"]
  partial = tmp_path / "a.partial"
  kills = 0
  for enough in (1, 5000, 9000, 13000):
    kills += killed(first, partial, enough)
    assert not output.exists()
    done = len(HammingIndex.load(partial).codes) if partial.exists() else 0
  assert kills >= 3
  assert done >= 5
  assert not killed(first, partial, 10**9)
  assert output.read_bytes() == (tmp_path / "whole").read_bytes()
  for i in range(60):
    picture(folder / f"new {i}.jpg", 1000 + i, (200, 160))
    (folder / f"{i}.jpg").unlink()
  counts = []
  for enough in (1, 3000, 7000):
    kills += killed(["--update"], output, enough)
    index = HammingIndex.load(output)
    assert set(whole.names) <= set(index.names)
    assert set(index.names) <= set(whole.names) | set(os.listdir(folder))
    assert len(index.codes) == len(index.names) == len(index.columns["look"])
    counts.append(len(index))
  assert kills >= 5
  assert counts == sorted(counts)
  assert counts[-1] > 150
  assert not killed(["--update"], output, 10**9)
  anew = encode_folder(made, folder, tmp_path / "b")
  assert rows_of(HammingIndex.load(output)) == rows_of(anew)


def test_what_an_index_replaces_is_told(encoder, tmp_path, capsys):
  first, second = (tmp_path / name for name in ("first", "second"))
  for i in range(2):
    picture(first / f"{i}.png", i)
    picture(second / f"{i}.png", i)
  output = tmp_path / "a.index"
  encode_folder(encoder, first, output)
  encode_folder(encoder, first, output)
  assert "replaced" not in capsys.readouterr().out
  encode_folder(encoder, second, output)
  out = capsys.readouterr().out
  assert f"an index of 2 pictures in {first.resolve()}; it is replaced" in out


def test_a_folder_without_pictures_leaves_nothing(encoder, tmp_path):
  (tmp_path / "empty").mkdir()
  with pytest.raises(InputError, match="holds no pictures"):
    encode_folder(encoder, tmp_path / "empty", tmp_path / "a.index")
  assert [path.name for path in tmp_path.iterdir()] == ["empty"]
