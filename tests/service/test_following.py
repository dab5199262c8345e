"""A new state of the index file is taken up whole, or the old one stays."""

import asyncio
import logging
import os
import shutil

import numpy as np
import pytest

from udh_jax.encoders.folder import encode_folder
from udh_jax.errors import InputError
from udh_jax.retrieval.index import HammingIndex
from udh_jax.service.collection import IndexCollection
from udh_jax.service.following import Following, IndexFile


def small(path, letter, size=5, about=None):
  codes = np.random.default_rng(ord(letter)).integers(0, 256, (size, 2), np.uint8)
  HammingIndex(codes, [f"{letter}{i}" for i in range(size)], about=about).save(path)


@pytest.fixture
def following(tmp_path):
  path = tmp_path / "mine.index"
  small(path, "a")
  file = IndexFile(path, batch_sizes=(1,))
  return Following(file, file.load())


def look(following):
  results = []
  asyncio.run(following.look(results.append))
  return results


def names(following):
  return following.now.collection.page(0, 1000)[0]


def test_a_new_file_is_taken_up_once(following, tmp_path):
  assert look(following) == []
  small(tmp_path / "mine.index", "b", size=7)
  assert look(following) == [True]
  assert names(following) == [f"b{i}" for i in range(7)] and following.problem is None
  assert look(following) == []


def test_a_damaged_file_is_not_taken_up(following, tmp_path, caplog):
  path = tmp_path / "mine.index"
  small(tmp_path / "other", "b", size=300)
  data = bytearray((tmp_path / "other").read_bytes())
  for damaged in (data[:-3], b"no index", b"", bytes(data[:-40]) + b"x" + bytes(data[-39:])):
    path.write_bytes(damaged)
    with caplog.at_level(logging.ERROR):
      assert look(following) == [False]
    assert names(following) == [f"a{i}" for i in range(5)]
    assert "mine.index" in following.problem and following.problem in caplog.records[-1].message
    assert look(following) == []  # it is not tried again until it changes
  path.write_bytes(data)
  assert look(following) == [True]
  assert len(names(following)) == 300 and following.problem is None


def test_a_file_that_is_gone_is_waited_for(following, tmp_path):
  path = tmp_path / "mine.index"
  path.rename(tmp_path / "away")
  assert look(following) == []
  assert "gone" in following.problem and names(following)[0] == "a0"
  (tmp_path / "away").rename(path)
  assert look(following) == [True] and following.problem is None


def test_what_was_refused_is_tried_again(encoders, pictures, tmp_path, load, caplog):
  (first, first_source), (second, second_source) = encoders
  path = tmp_path / "mine.index"
  encode_folder(first, pictures, path, source=str(first_source))
  file = IndexFile(path, batch_sizes=(1,))
  following = Following(file, load(file), again=0.0)
  assert look(following) == []  # what is served needs no other try
  # The index is there before its encoder is.
  encode_folder(second, pictures, path, source=str(tmp_path / "later"))
  with caplog.at_level(logging.ERROR):
    for _ in range(3):
      assert look(following) == [False] and "later is not a folder" in following.problem
    assert len(caplog.records) == 1
    (tmp_path / "later").mkdir()
    assert look(following) == look(following) == [False]
    assert len(caplog.records) == 2 and "holds no encoder" in caplog.records[-1].message
  shutil.copytree(second_source, tmp_path / "later", dirs_exist_ok=True)
  assert look(following) == [True] and following.problem is None
  assert following.now.coder.digest == second.digest
  assert look(following) == []


def test_a_defect_is_logged_once(following, tmp_path, monkeypatch, caplog):
  following._again = 0.0
  small(tmp_path / "mine.index", "b")

  def fail(previous):
    raise RuntimeError("out of memory")

  monkeypatch.setattr(following._source, "load", fail)
  with caplog.at_level(logging.ERROR):
    assert look(following) == look(following) == [False]
  (record,) = caplog.records
  assert "RuntimeError: out of memory" in record.message and record.exc_info


def test_writing_over_the_file_changes_nothing_that_is_served(following, tmp_path):
  path = tmp_path / "mine.index"
  with open(path, "r+b") as file:  # as cp does, in place
    file.truncate(0)
    file.write(os.urandom(50))
  collection = following.now.collection
  assert names(following) == [f"a{i}" for i in range(5)]
  assert collection.item("a3") is not None
  assert len(collection.nearest(np.zeros((1, 2), np.uint8), 5)[0]) == 5


def test_an_index_of_another_encoder_is_not_taken_up(encoders, pictures, tmp_path, load):
  (first, first_source), (second, second_source) = encoders
  path = tmp_path / "mine.index"
  encode_folder(first, pictures, path, source=str(first_source))
  file = IndexFile(path, encoder=str(first_source), batch_sizes=(1,))
  following = Following(file, load(file))
  encode_folder(second, pictures, path, source=str(second_source))
  assert look(following) == [False]
  assert "not the one that made the index" in following.problem
  assert following.now.collection.digest == first.digest == following.now.coder.digest
  with pytest.raises(InputError, match="not the one that made the index"):
    file.load()
  # Where no encoder was named, the one of the new index is loaded with it.
  file = IndexFile(path, batch_sizes=(1,))
  served = file.load(following.now)
  assert served.coder.digest == second.digest == served.collection.digest
  shutil.rmtree(tmp_path / "nowhere", ignore_errors=True)
  encode_folder(first, pictures, path, source=str(tmp_path / "nowhere"))
  with pytest.raises(InputError, match=r"cannot be loaded: .*nowhere is not a folder"):
    file.load(served)


def test_a_folder_that_is_not_known_is_none(tmp_path):
  """Codes of a listing that has its pictures within itself are of no folder."""
  small(tmp_path / "listed.index", "a", about={"folder": ""})
  assert IndexFile(tmp_path / "listed.index", batch_sizes=(1,)).load().collection.folder is None


def test_neighbours_are_those_of_counting_bits(rows_of, rng):
  codes = rng.integers(0, 8, (700, 2), np.uint8)  # with many ties
  index = HammingIndex(codes, [str(i) for i in range(700)])
  collection = IndexCollection(index, title="", version="", folder=None)
  queries = rng.integers(0, 8, (6, 2), np.uint8)
  for k in (1, 33, 300, 700, 1002):
    for code, hits in zip(queries, collection.nearest(queries, k), strict=True):
      assert [(hit.distance, int(hit.name)) for hit in hits] == rows_of(codes, code)[:k]
  with pytest.raises(InputError, match="no metadata"):
    collection.nearest(queries, 3, ("a=1",))
