"""The index: neighbours by both engines, and a file that is whole, checked and readable again."""

import json
import os

import numpy as np
import pytest

from udh_jax.coding import pack_codes
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex


def distances_of(queries, codes):
  return np.unpackbits(queries[:, None] ^ codes[None], axis=2).sum(axis=2).astype(int)


def neighbours_of(queries, codes, k):
  distances = distances_of(queries, codes)
  order = np.argsort(distances, axis=1, kind="stable")[:, :k]
  return np.take_along_axis(distances, order, axis=1), order


@pytest.fixture
def index(rng):
  codes = rng.integers(0, 256, (203, 2), dtype=np.uint8)
  codes[7] = codes[3] = codes[200]
  return HammingIndex(codes, [f"folder/{i} ä.jpg" for i in range(203)])


@pytest.mark.parametrize("engine", ["jax", "faiss", "auto"])
@pytest.mark.parametrize("k", [1, 10, 203])
def test_both_engines_find_the_same_with_ties_by_index(rng, index, engine, k):
  queries = np.concatenate([rng.integers(0, 256, (9, 2), dtype=np.uint8), index.codes[200:201]])
  distances, order = neighbours_of(queries, index.codes, k)
  found = index.search(queries, k, engine=engine)
  np.testing.assert_array_equal(found.distances, distances)
  np.testing.assert_array_equal(found.indices, order)
  assert found.indices[-1, 0] == 3
  assert index.search(queries[:0], k, engine=engine).indices.shape == (0, k)


@pytest.mark.parametrize("num_items", [1, 5, 8, 203])
def test_items_split_over_devices(rng, mesh, index, num_items):
  part = HammingIndex(index.codes[:num_items], index.names[:num_items])
  queries = rng.integers(0, 256, (4, 2), dtype=np.uint8)
  for k in {1, num_items}:
    found = part.search(queries, k, engine="jax", mesh=mesh)
    for a, b in zip(found, neighbours_of(queries, part.codes, k), strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("radius", [0, 3, 16])
def test_radius_search(rng, index, radius):
  queries = np.concatenate([rng.integers(0, 256, (3, 2), dtype=np.uint8), index.codes[200:201]])
  found = index.radius_search(queries, radius)
  for row, distances in zip(found, distances_of(queries, index.codes), strict=True):
    order = [i for i in np.argsort(distances, kind="stable") if distances[i] <= radius]
    np.testing.assert_array_equal(row.indices, order)
    np.testing.assert_array_equal(row.distances, distances[order])


@pytest.mark.parametrize("num_bits", [1, 7, 8, 12, 64])
def test_padding_bits_never_count(rng, num_bits):
  codes = rng.choice([-1, 1], (30, num_bits))
  index = HammingIndex(np.asarray(pack_codes(codes)), ["x"] * 30, num_bits=num_bits)
  expected = (codes[:5, None] != codes[None]).sum(axis=2)
  for engine in ("jax", "faiss"):
    found = index.search(index.codes[:5], 30, engine=engine)
    np.testing.assert_array_equal(found.distances, np.sort(expected, axis=1))
  if num_bits % 8:
    bad = index.codes.copy()
    bad[4, -1] |= 1
    with pytest.raises(InputError, match="padding bits"):
      HammingIndex(bad, ["x"] * 30, num_bits=num_bits)


def test_saved_and_loaded_again(tmp_path, index):
  path = tmp_path / "a.index"
  names = [*index.names[:-1], os.fsdecode(b"broken \xff name\n")]
  index = HammingIndex(index.codes, names, num_bits=16, about={"size": 96})
  index.save(path)
  found = HammingIndex.load(path)
  np.testing.assert_array_equal(found.codes, index.codes)
  assert (found.names, found.num_bits, found.about) == (names, 16, {"size": 96})
  assert [p.name for p in tmp_path.iterdir()] == ["a.index"]


def test_an_empty_index_is_kept_and_filled(tmp_path, index):
  HammingIndex(np.zeros((0, 2), np.uint8), [], num_bits=12).save(tmp_path / "a")
  empty = HammingIndex.load(tmp_path / "a")
  assert (len(empty), empty.num_bits, empty.names) == (0, 12, [])
  with pytest.raises(InputError, match="is empty"):
    empty.search(index.codes[:1], 1)
  assert empty.radius_search(index.codes[:1], 3)[0].indices.size == 0
  codes = index.codes & np.array([255, 240], np.uint8)
  filled = empty.add(codes[:100], index.names[:100]).add(codes[100:], index.names[100:])
  assert len(empty) == 0
  assert filled.names == index.names
  np.testing.assert_array_equal(filled.codes, codes)


@pytest.mark.parametrize("place", [0, 9, 40, 60, -1000, -1])
def test_an_altered_byte_is_noticed(tmp_path, index, place):
  path = tmp_path / "a"
  index.save(path)
  data = bytearray(path.read_bytes())
  data[place] ^= 1
  path.write_bytes(data)
  with pytest.raises(InputError, match=r"damaged|no index|version|cut short"):
    HammingIndex.load(path)


@pytest.mark.parametrize("length", [0, 8, 30, 100, -1])
def test_a_file_cut_short_is_noticed(tmp_path, index, length):
  path = tmp_path / "a"
  index.save(path)
  path.write_bytes(path.read_bytes()[:length])
  with pytest.raises(InputError, match=r"damaged|no index|cut short"):
    HammingIndex.load(path)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, index, monkeypatch):
  path = tmp_path / "a"
  index.save(path)
  before = path.read_bytes()

  def stop(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", stop)
  with pytest.raises(KeyboardInterrupt):
    index.add(index.codes, index.names).save(path)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw", "multi_hash"])
def test_faiss_gets_the_same_codes(rng, tmp_path, kind):
  import faiss

  codes = rng.integers(0, 256, (3000, 4), dtype=np.uint8)
  index = HammingIndex(codes, map(str, range(3000)))
  options = {"ivf": {"num_cells": 8, "num_probes": 8}}.get(kind, {})
  path = str(tmp_path / "faiss")
  faiss.write_index_binary(index.to_faiss(kind, **options), path)
  distances, found = faiss.read_index_binary(path).search(codes[:50], 1)
  assert (distances == 0).mean() > 0.95
  assert (codes[found[:, 0]] == codes[:50]).all(axis=1).mean() > 0.95


def test_the_header_is_what_the_documentation_says(tmp_path, index):
  path = tmp_path / "a"
  index.save(path)
  data = path.read_bytes()
  assert data[:8] == b"UDHINDEX"
  assert int.from_bytes(data[8:12], "little") == 1
  header = json.loads(data[52 : 52 + int.from_bytes(data[12:20], "little")])
  assert header["num_items"] == 203
  assert [part["name"] for part in header["parts"]] == ["codes", "name_ends", "names"]


CODES = np.zeros((3, 2), np.uint8)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: HammingIndex(CODES, ["a"]), "3 codes and 1 names"),
    (lambda: HammingIndex(CODES.astype(int), "abc"), "codes is int64"),
    (lambda: HammingIndex(CODES, [1, 2, 3]), "name 1 is not a string"),
    (lambda: HammingIndex(CODES, "abc", num_bits=17), r"17 bits need \[n, 3\]"),
    (lambda: HammingIndex(CODES, "abc").add(np.zeros((1, 3), np.uint8), "d"), "differ in width"),
    (lambda: HammingIndex(CODES, "abc").search(CODES[:, :1], 1), "differ in width"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, 4), "k is 4, expected 1 to 3"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, 0), "k is 0"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, 1, engine="x"), "engine 'x'"),
    (lambda: HammingIndex(CODES, "abc").radius_search(CODES, -1), "radius is -1"),
    (lambda: HammingIndex(CODES, "abc").to_faiss("tree"), "kind 'tree'"),
    (lambda: HammingIndex(CODES, "abc").to_faiss("flat", degree=3), "no option degree"),
    (lambda: HammingIndex.load("/nowhere/x"), "/nowhere/x cannot be read"),
    (lambda: HammingIndex(CODES, "abc").save("/nowhere/x"), "/nowhere/x cannot be written"),
  ],
)
def test_bad_input_is_one_clear_line(call, words):
  with pytest.raises(InputError, match=words) as caught:
    call()
  assert "\n" not in str(caught.value)
