"""A folder in step with a store, from Python and from the command line."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest

from udh_jax.commands import copy, encode, search
from udh_jax.data.pictures import list_pictures, read_picture
from udh_jax.encoders import store as encoders_store
from udh_jax.encoders.distributed.listing import make_plan
from udh_jax.encoders.distributed.parts import encode_part
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.queries import search_pictures
from udh_jax.encoders.store import encode_folder_to_store
from udh_jax.errors import InputError
from udh_jax.stores import StoreError, create_store, open_store
from udh_jax.stores.as_index import StoreAsIndex
from udh_jax.stores.interface import FILE_COLUMNS, Found
from udh_jax.stores.lance import LanceStore

pytest.importorskip("lancedb")
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def encoder(image_encoder):
  return image_encoder


@pytest.fixture
def other_encoder(image_encoder):
  hashed = image_encoder.variables["hash"]
  hashed = {"kernel": -hashed["kernel"], "bias": hashed["bias"]}
  return Encoder(dict(image_encoder.variables) | {"hash": hashed}, image_encoder.about)


@pytest.fixture
def folder(save_pictures):
  """37 pictures in nested folders, and a file that is none."""
  folder = save_pictures(*(f"group {i % 3}/{i:03d} ü.png" for i in range(37)))
  (folder / "group 0" / "broken.jpg").write_bytes(b"no picture")
  return folder


@pytest.fixture
def expected(encoder, folder):
  """Code of each readable picture, by name, of a call for all of them."""
  names = [name for name in list_pictures(folder) if "broken" not in name]
  codes = encoder(np.stack([read_picture(folder / name, 8) for name in names]))
  return dict(zip(names, codes.tolist(), strict=True))


@pytest.fixture
def store(encoder, tmp_path):
  about = {"encoder": {"digest": encoder.digest, "source": ""}}
  return create_store(f"lancedb:{tmp_path / 'l'}", num_bits=12, about=about, columns=FILE_COLUMNS)


def codes_in(store):
  names = [name for part in store.names() for name in part]
  return dict(zip(names, store.get(names).codes.tolist(), strict=True))


def test_a_store_follows_its_folder(encoder, store, folder, expected):
  done = encode_folder_to_store(encoder, folder, store, batch_size=8)
  assert (done.listed, done.encoded, done.removed) == (38, 37, 0)
  assert list(done.unreadable) == ["group 0/broken.jpg"]
  assert codes_in(store) == expected
  assert list(codes_in(store)) == sorted(expected)
  # Without a change nothing is read.
  assert encode_folder_to_store(encoder, folder, store)[:3] == (38, 0, 0)
  first, second, third, fourth = sorted(expected)[:4]
  shutil.copyfile(folder / second, folder / first)
  os.utime(folder / first, ns=(0, 1))
  shutil.copyfile(folder / second, folder / "new.png")
  (folder / third).unlink()
  (folder / fourth).write_bytes(b"damaged")
  done = encode_folder_to_store(encoder, folder, store)
  assert (done.encoded, done.removed) == (2, 1)
  now = expected | {first: expected[second], "new.png": expected[second]}
  del now[fourth]
  assert codes_in(store) == now
  assert encode_folder_to_store(encoder, folder, store, remove=True).removed == 1
  del now[third]
  assert codes_in(store) == now


def test_files_of_other_kinds_are_told(encoder, store, folder, capsys):
  (folder / "film.mov").write_bytes(b"a film")
  encode_folder_to_store(encoder, folder, store)
  assert "1 file of another kind was passed over (.mov 1)." in capsys.readouterr().out


def test_own_columns_outlive_encoding_again(encoder, folder, expected, tmp_path):
  about = {"encoder": {"digest": encoder.digest, "source": ""}}
  columns = {**FILE_COLUMNS, "label": "text"}
  store = create_store(f"lancedb:{tmp_path / 'l'}", num_bits=12, about=about, columns=columns)
  encode_folder_to_store(encoder, folder, store)
  name, other = sorted(expected)[:2]
  store.upsert([name], store.get([name]).codes, {"label": ["cat"]})
  shutil.copyfile(folder / other, folder / name)
  os.utime(folder / name, ns=(0, 1))
  assert encode_folder_to_store(encoder, folder, store).encoded == 1
  rows = store.get([name])
  assert rows.codes.tolist() == [expected[other]]
  assert rows.metadata["label"] == ["cat"] and rows.metadata["changed"] == [1]


def test_another_folder_does_not_empty_a_store(encoder, store, save_pictures):
  first = save_pictures(*(f"{i}.png" for i in range(9)), folder="first")
  second = save_pictures(*(f"{i}.png" for i in range(5, 12)), folder="second")
  encode_folder_to_store(encoder, first, store, remove=True)
  before = codes_in(store)
  words = rf"second has 4 of the 9 pictures in lancedb:.*, which is of {first}; give that folder"
  with pytest.raises(InputError, match=words):
    encode_folder_to_store(encoder, second, store, remove=True)
  assert codes_in(store) == before
  # Without removal a store may hold the pictures of several folders; the first one stays noted.
  assert encode_folder_to_store(encoder, second, store)[:3] == (7, 7, 0)
  assert store.count() == 12 and store.about["folder"] == str(first)
  # The folder that is noted may lose any number of its pictures.
  for i in range(1, 9):
    (first / f"{i}.png").unlink()
  assert encode_folder_to_store(encoder, first, store, remove=True).removed == 11


def test_a_store_learns_where_its_encoder_and_its_folder_went(
  encoder, store, folder, expected, tmp_path, monkeypatch, capsys
):
  encode_folder_to_store(encoder, folder, store, source="hf-hub:me/first")
  location = f"lancedb:{tmp_path / 'l'}"
  digest = encoder.digest
  about = {"encoder": {"digest": digest, "source": "hf-hub:me/first"}, "folder": str(folder)}
  assert store.about == open_store(location).about == about
  moved = folder.with_name("moved")
  folder.rename(moved)
  done = encode_folder_to_store(encoder, moved, store, source="hf-hub:me/second", remove=True)
  assert (done.encoded, done.removed) == (0, 0)
  about = {"encoder": {"digest": digest, "source": "hf-hub:me/second"}, "folder": str(moved)}
  assert store.about == open_store(location).about == about
  # By a link it is the same folder.
  folder.symlink_to(moved)
  encode_folder_to_store(encoder, folder, store, remove=True)
  assert store.about == about and codes_in(store) == expected

  # Who may not write it can encode all the same.
  def refuse(self, about):
    raise StoreError("permission denied.")

  monkeypatch.setattr(type(store), "_describe", refuse)
  encode_folder_to_store(encoder, moved, store, source="hf-hub:me/third")
  assert "is not noted: permission denied." in capsys.readouterr().out
  assert store.about == about


def test_a_stopped_call_goes_on(encoder, store, folder, expected, monkeypatch):
  monkeypatch.setattr(encoders_store, "_AT_ONCE", 8)
  load, loads = type(store).load, []

  def fail(self, batches):
    loads.append(0)
    if len(loads) == 3:
      raise KeyboardInterrupt
    return load(self, batches)

  monkeypatch.setattr(type(store), "load", fail)
  with pytest.raises(KeyboardInterrupt):
    encode_folder_to_store(encoder, folder, store, batch_size=4)
  there = codes_in(store)
  assert 16 <= len(there) < 24 and there.items() <= expected.items()  # two transactions
  done = encode_folder_to_store(encoder, folder, store, batch_size=4)
  assert done.encoded == 37 - len(there)
  assert codes_in(store) == expected


def test_names_that_a_store_cannot_hold_are_left_out(encoder, store, folder, expected):
  name = os.fsdecode(b"broken \xff.png")
  shutil.copyfile(folder / sorted(expected)[0], folder / name)
  done = encode_folder_to_store(encoder, folder, store, remove=True)
  assert "not UTF-8" in done.unreadable[name]
  assert codes_in(store) == expected


def test_a_file_out_of_reach_keeps_its_item(encoder, store, folder, expected, monkeypatch):
  from udh_jax.data import pictures

  encode_folder_to_store(encoder, folder, store)
  first, second, third = sorted(expected)[:3]
  (folder / first).unlink()
  (folder / first).symlink_to("on a disk that is away.png")
  os.utime(folder / second, ns=(0, 1))
  (folder / third).write_bytes(b"damaged")
  opened = pictures.open_regular

  def open_one(path):
    if os.fspath(path).endswith(second):
      raise OSError(errno.EIO, os.strerror(errno.EIO))
    return opened(path)

  monkeypatch.setattr(pictures, "open_regular", open_one)
  done = encode_folder_to_store(encoder, folder, store, remove=True)
  assert set(done.unreadable) == {first, second, third, "group 0/broken.jpg"}
  assert done.removed == 1 and codes_in(store) == {
    name: code for name, code in expected.items() if name != third
  }


def test_what_cannot_be_encoded(encoder, other_encoder, store, folder, tmp_path):
  with pytest.raises(InputError, match="another encoder"):
    encode_folder_to_store(other_encoder, folder, store)
  with pytest.raises(InputError, match="is not a folder"):
    encode_folder_to_store(encoder, tmp_path / "absent", store)
  (tmp_path / "empty").mkdir()
  with pytest.raises(InputError, match="holds no pictures"):
    encode_folder_to_store(encoder, tmp_path / "empty", store)
  plain = create_store(f"lancedb:{tmp_path / 'p'}", num_bits=12, about=store.about)
  with pytest.raises(InputError, match="lacks the columns bytes, changed"):
    encode_folder_to_store(encoder, folder, plain)


class Name(str):
  """A string that can be counted while it lives."""


class CountingStore:
  """Finds the same number of items for each query; knows which of their names are still held."""

  num_bits, about, hits = 12, {}, 50

  def __init__(self):
    self.held, self.most, self.given = weakref.WeakSet(), 0, 0

  def found(self, queries):
    answers = []
    for _ in queries:
      names = [Name(self.given + i) for i in range(self.hits)]
      self.given += self.hits
      self.held.update(names)
      answers.append(Found(names, np.arange(self.hits, dtype=np.int32)))
    self.most = max(self.most, len(self.held))
    return answers

  def nearest(self, queries, k, **_):
    return self.found(queries)

  def within(self, queries, radius, **_):
    return self.found(queries)


@pytest.mark.parametrize("options", [{"k": 50}, {"k": 30, "radius": 12}])
def test_names_of_answers_that_were_given_are_let_go(encoder, save_pictures, options):
  folder = save_pictures(*(f"{i}.png" for i in range(8)))
  files = [folder / f"{i % 8}.png" for i in range(400)]
  store = CountingStore()
  index = StoreAsIndex(store)
  place = 0
  for answer in search_pictures(index, encoder, files, batch_size=4, **options):
    assert [index.names[i] for i in answer.hits.indices] == [
      f"{place + i}" for i in range(options["k"])
    ]
    place += store.hits
  assert store.given == place == len(index.names) == 20_000
  assert store.most <= 3 * 4 * store.hits  # a few batches, of 100


def test_names_stay_with_their_indices():
  store = CountingStore()
  index = StoreAsIndex(store)
  queries = np.zeros((3, 2), np.uint8)
  _, indices = index.search(queries, 50)
  store.hits = 0
  empty = index.radius_search(queries, 1)
  store.hits = 2
  later = index.radius_search(queries, 1)
  kept = indices[1][10:12]  # a view holds them too
  del indices
  assert [hit.indices.tolist() for hit in empty] == [[]] * 3
  assert [index.names[i] for i in kept] == ["60", "61"]
  assert [index.names[i] for hit in later for i in hit.indices] == [f"{150 + i}" for i in range(6)]
  assert index.names[150:152] == ["150", "151"]
  for gone in (0, 49, 100, 149, 156, -1):
    with pytest.raises(IndexError, match="is not held"):
      index.names[gone]
  del kept, later
  assert not store.held


def test_from_the_command_line(
  encoder, other_encoder, folder, expected, tmp_path, capsys, monkeypatch, failing
):
  monkeypatch.chdir(tmp_path)
  encoder.save("e")
  other_encoder.save("other")
  images, location = str(folder), f"lancedb:{tmp_path / 'l'}"
  filled = ["--encoder", "e", "--images", images, "--store", location]
  encode.main(filled)
  said = capsys.readouterr().out
  assert "files cannot be read; they are listed in codes.unreadable.txt" in said
  assert "37 items; 37 of 38 pictures were encoded, 0 items removed" in said
  assert "group 0/broken.jpg: " in pathlib.Path("codes.unreadable.txt").read_text()
  first, second = sorted(expected)[:2]
  asked = ["--store", location, "--image", str(folder / second)]
  search.main([*asked, "-k", "3", "--json"])
  found = json.loads(capsys.readouterr().out)
  assert found["bits"] == 12 and len(found["neighbours"]) == 3
  codes = np.array(list(expected.values()), np.uint8)
  distances = np.bitwise_count(codes ^ np.array(expected[second], np.uint8)).sum(axis=1)
  order = np.argsort(distances, kind="stable")[:3]
  assert [n["name"] for n in found["neighbours"]] == [list(expected)[i] for i in order]
  assert [n["distance"] for n in found["neighbours"]] == distances[order].tolist()
  size = (folder / first).stat().st_size
  search.main([*asked, "--where", f"bytes={size}", "--radius", "12"])
  names = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()]
  assert sorted(names) == sorted(n for n in expected if (folder / n).stat().st_size == size)
  (folder / first).unlink()
  encode.main([*filled, "--update"])
  assert "36 items; 0 of 37 pictures were encoded, 1 items removed" in capsys.readouterr().out
  assert "another encoder" in failing(
    encode.main, ["--encoder", "other", "--images", images, "--store", location]
  )
  assert "no approximate index" in failing(search.main, [*asked, "--approximate"])
  assert "udh-jax copy" in failing(search.main, [*asked, "--radius", "auto"])
  assert "--asymmetric reads all codes" in failing(search.main, [*asked, "--asymmetric"])
  assert "no item that matches" in failing(search.main, [*asked, "--where", "bytes=1"])
  assert "give --output or --store" in failing(encode.main, filled[:4])
  assert "not both" in failing(encode.main, [*filled, "--output", "x.index"])
  assert "--table is given without --store" in failing(
    encode.main, [*filled[:4], "--output", "x.index", "--table", "t"]
  )
  assert "--workers is given without --ray" in failing(
    encode.main, [*filled[:4], "--output", "x.index", "--workers", "2"]
  )


def test_writing_ends_with_the_indexes(encoder, folder, tmp_path, monkeypatch, failing):
  encoder.save(tmp_path / "e")
  monkeypatch.chdir(tmp_path)
  location = f"lancedb:{tmp_path / 'l'}"
  given = ["--encoder", "e", "--images", str(folder), "--store", location]
  encode.main(given)
  assert not open_store(location).has_index()
  built = []
  build = LanceStore.build_index
  monkeypatch.setattr(LanceStore, "build_index", lambda self: built.append(1) or build(self))
  optimized = []

  def busy(self):
    optimized.append(1)
    raise StoreError("another process was faster.")

  monkeypatch.setattr(LanceStore, "optimize", busy)  # which is no reason to fail
  for _ in range(2):  # the second one has it already
    encode.main([*given, "--update", "--approximate"])
  encode.main([*given, "--update"])  # where there is one, only if that is asked for
  assert open_store(location).has_index() and built == [1] and optimized == [1, 1]
  assert "--approximate is given without --store" in failing(
    encode.main, [*given[:4], "--output", "x.index", "--approximate"]
  )


def test_codes_of_a_cluster_name_their_folder(encoder, folder, tmp_path, monkeypatch):
  """Encoded and stored by one command, or copied afterwards."""
  encoder.save(tmp_path / "e")
  output = str(tmp_path / "parts")

  def by_ourselves(encoder, images, output, *, source, batch_size):
    plan = make_plan(encoder, images, output, source=source, part_size=20)
    for number in range(len(plan.parts)):
      encode_part(encoder, plan, output, number, batch_size=batch_size)

  monkeypatch.setattr(encode, "encode_distributed", by_ourselves)
  first, second = (f"lancedb:{tmp_path / name}" for name in ("first", "second"))
  given = ["--ray", "--encoder", str(tmp_path / "e"), "--images", str(folder), "--output", output]
  encode.main([*given, "--store", first])
  copy.main(["--from", output, "--store", second])
  for location in (first, second):
    assert open_store(location).about == {
      "encoder": {"digest": encoder.digest, "source": str(tmp_path / "e")},
      "folder": str(folder),
    }


@pytest.mark.slow
def test_killed_on_the_way(encoder, folder, expected, tmp_path):
  """A process that is killed leaves whole transactions, and the next one goes on."""
  encoder.save(tmp_path / "e")
  location = f"lancedb:{tmp_path / 'l'}"
  program = """
import sys
from udh_jax.commands import encode
from udh_jax.encoders import store
store._AT_ONCE = 4
encode.main(sys.argv[1:])
"""
  arguments = ["--encoder", str(tmp_path / "e"), "--images", str(folder), "--store", location]
  command = [sys.executable, "-c", program, *arguments, "--batch-size", "2"]
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  process = subprocess.Popen(command, cwd=tmp_path, env=environment)
  while not (tmp_path / "l").is_dir() or len(list((tmp_path / "l").rglob("*.manifest"))) < 4:
    assert process.poll() is None
    time.sleep(0.01)
  process.kill()
  process.wait()
  there = codes_in(open_store(location))
  assert there.items() <= expected.items()
  subprocess.run(command, cwd=tmp_path, env=environment, check=True)
  assert codes_in(open_store(location)) == expected
