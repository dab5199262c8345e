"""The index: neighbours by every engine, items that come and go, and what a file keeps of it."""

import copy
import hashlib
import json
import os
import pickle
import struct
import sys

import jax
import numpy as np
import pytest

from udh_jax.coding import pack_codes
from udh_jax.cpu import choice
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex, asymmetric_search
from udh_jax.retrieval.index import file, hamming_index


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


@pytest.mark.usefixtures("each_kernel")
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


@pytest.mark.usefixtures("each_kernel")
@pytest.mark.parametrize("radius", [0, 3, 16])
def test_radius_search(rng, index, radius):
  queries = np.concatenate([rng.integers(0, 256, (3, 2), dtype=np.uint8), index.codes[200:201]])
  found = index.radius_search(queries, radius)
  for row, distances in zip(found, distances_of(queries, index.codes), strict=True):
    order = [i for i in np.argsort(distances, kind="stable") if distances[i] <= radius]
    np.testing.assert_array_equal(row.indices, order)
    np.testing.assert_array_equal(row.distances, distances[order])


def test_asymmetric_search(rng, index):
  outputs = rng.normal(size=(4, index.num_bits)).astype(np.float32)
  found = index.asymmetric_search(outputs, 5)
  for part, wanted in zip(found, asymmetric_search(outputs, index.codes, 5), strict=True):
    assert isinstance(part, np.ndarray)
    np.testing.assert_array_equal(part, wanted)
  empty = HammingIndex(index.codes[:0], [], num_bits=index.num_bits)
  with pytest.raises(InputError, match="the index is empty"):
    empty.asymmetric_search(outputs, 1)
  with pytest.raises(InputError, match=rf"\(4, {index.num_bits - 1}\), expected \[q, "):
    index.asymmetric_search(outputs[:, 1:], 1)


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
  assert found.names[-1] == names[-1]
  assert [p.name for p in tmp_path.iterdir()] == ["a.index"]


def test_an_empty_index_is_kept_and_filled(tmp_path, index):
  HammingIndex(np.zeros((0, 2), np.uint8), [], num_bits=12).save(tmp_path / "a")
  empty = HammingIndex.load(tmp_path / "a")
  assert (len(empty), empty.num_bits, empty.names) == (0, 12, [])
  codes = index.codes & np.array([255, 240], np.uint8)
  with pytest.raises(InputError, match="is empty"):
    empty.search(codes[:1], 1)
  assert empty.radius_search(codes[:1], 3)[0].indices.size == 0
  filled = empty.add(codes[:100], index.names[:100]).add(codes[100:], index.names[100:])
  assert len(empty) == 0
  assert filled.names == index.names
  np.testing.assert_array_equal(filled.codes, codes)


def test_every_altered_byte_is_noticed_or_of_no_account(tmp_path, rng):
  path = tmp_path / "a"
  index = HammingIndex(
    rng.integers(0, 256, (5, 2), dtype=np.uint8),
    [f"{i} ä" for i in range(5)],
    about={"encoder": {"digest": "1"}},
    columns={"size": rng.integers(0, 9, 5)},
  )
  index.save(path)
  index = index.remove(["2 ä"]).add(index.codes[:1], ["new"], columns={"size": [7]})
  index.save(path)  # appended: two segments, of which one has lost an item
  data = path.read_bytes()
  refused = 0
  for place in (*range(20), *range(510, 602), *range(1022, 1114), *range(4090, len(data))):
    altered = bytearray(data)
    altered[place] ^= 1 << place % 8
    path.write_bytes(altered)
    try:
      require_equal(HammingIndex.load(path), index)
    except InputError as error:
      assert "\n" not in str(error)
      refused += 1
  # Only the room between parts and around the two slots may hold anything.
  assert 12 + 2 * 88 + len(data) - 4096 - 64 * 16 < refused


def test_a_file_cut_short_anywhere_is_refused(tmp_path, index):
  path = tmp_path / "a"
  index = HammingIndex(index.codes[:3], index.names[:3])
  index.save(path)
  index.add(index.codes[:1], ["new"]).save(path)
  data = path.read_bytes()
  for length in (*range(0, 4096, 31), *range(4096, len(data))):
    path.write_bytes(data[:length])
    with pytest.raises(InputError, match=r"damaged|not an index|cut short"):
      HammingIndex.load(path)


def require_equal(found, expected):
  assert list(found.names) == list(expected.names)
  np.testing.assert_array_equal(found.codes, expected.codes)
  assert (found.num_bits, found.about) == (expected.num_bits, expected.about)
  assert set(found.columns) == set(expected.columns)
  for name, column in expected.columns.items():
    np.testing.assert_array_equal(found.columns[name], column)
    assert found.columns[name].dtype == column.dtype


def test_a_file_of_version_1_is_read_and_saved_as_version_2(tmp_path, index):
  path = tmp_path / "a"
  texts = [name.encode() for name in index.names]
  parts = {
    "codes": index.codes.tobytes(),
    "name_ends": np.cumsum([len(text) for text in texts], dtype="<u8").tobytes(),
    "names": b"".join(texts),
  }
  header = {"num_items": 203, "num_bits": 16, "about": {"a": [1]}}
  header["parts"] = [
    {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    for name, data in parts.items()
  ]
  text = json.dumps(header).encode()
  start = struct.pack("<8sIQ32s", b"UDHINDEX", 1, len(text), hashlib.sha256(text).digest())
  data = start + text + b"".join(parts.values())
  path.write_bytes(data)
  found = HammingIndex.load(path)
  require_equal(found, HammingIndex(index.codes, index.names, about={"a": [1]}))
  found.save(path)
  assert path.read_bytes()[8] == 2
  require_equal(HammingIndex.load(path), found)
  for place in (9, 40, 60, len(data) - 1000, len(data) - 1):
    altered = bytearray(data)
    altered[place] ^= 1
    path.write_bytes(altered)
    with pytest.raises(InputError, match=r"damaged|version"):
      HammingIndex.load(path)
    path.write_bytes(data[:place])
    with pytest.raises(InputError, match=r"damaged|not an index|cut short"):
      HammingIndex.load(path)


def test_items_come_go_and_change_as_in_a_dictionary(tmp_path, rng):
  """A long history of one file, against a dictionary that has the same done to it."""
  path = tmp_path / "a"
  index = HammingIndex(np.zeros((0, 3), np.uint8), [], num_bits=20, columns={"x": np.zeros((0, 2))})
  expected = {}
  for step in range(60):
    names = [f"n{i}" for i in rng.choice(40, rng.integers(0, 6), replace=False)]
    codes = rng.integers(0, 256, (len(names), 3), dtype=np.uint8) & np.uint8([255, 255, 240])
    column = rng.normal(size=(len(names), 2))
    there = [name for name in names if name in expected]
    if step % 3 == 0:
      index = index.remove(there)
    else:
      index = index.update(codes, names, columns={"x": column})
    for name in there:
      del expected[name]
    if step % 3:
      expected |= zip(names, zip(codes, column, strict=True), strict=True)
    if step % 2:
      index.save(path)
    if step % 5 == 4:
      index = HammingIndex.load(path) if step % 2 else index
    assert list(index.names) == list(expected)
    np.testing.assert_array_equal(
      index.codes, np.reshape([code for code, _ in expected.values()], (-1, 3))
    )
    np.testing.assert_array_equal(
      index.columns["x"], np.reshape([value for _, value in expected.values()], (-1, 2))
    )
    order = rng.permutation(len(expected))
    np.testing.assert_array_equal(index.find([list(expected)[i] for i in order]), order)
    assert index.find("n99").tolist() == [-1]
  assert len(expected) > 10
  require_equal(HammingIndex.load(path), index)


def test_a_save_costs_what_is_new(tmp_path, rng):
  path = tmp_path / "a"
  codes = rng.integers(0, 256, (20_000, 8), dtype=np.uint8)
  names = [f"folder/{i}.jpg" for i in range(20_000)]
  HammingIndex(codes, names).save(path)
  index, before, inode = HammingIndex.load(path), path.stat().st_size, path.stat().st_ino
  gone = names[5:9]
  index = index.remove(gone).add(codes[:3], ["a", "b", "c"])
  index.save(path)
  assert 0 < path.stat().st_size - before < 2000
  assert path.stat().st_ino == inode
  require_equal(HammingIndex.load(path), index)
  size = path.stat().st_size
  index.save(path)  # nothing new
  assert path.stat().st_size == size
  # What is appended and removed does not pile up.
  for i in range(100):
    index = index.remove(index.names[:400]).add(codes[:400], [f"{i} {j}" for j in range(400)])
    index.save(path)
  assert path.stat().st_size < 3 * before
  require_equal(HammingIndex.load(path), index)


def test_an_index_whose_file_was_changed_by_another_is_saved_whole(tmp_path, index):
  path = tmp_path / "a"
  index.save(path)
  mine, theirs = HammingIndex.load(path), HammingIndex.load(path)
  theirs.remove([theirs.names[0]]).save(path)
  mine = mine.add(index.codes[:1], ["mine"])
  mine.save(path)
  require_equal(HammingIndex.load(path), mine)
  assert len(theirs.codes) == 203  # what was opened before stays as it was


@pytest.mark.parametrize("appended", [False, True])
def test_what_another_puts_there_after_a_save_is_not_taken_for_one_s_own(
  tmp_path, index, monkeypatch, appended
):
  path, other = tmp_path / "a", tmp_path / "b"
  index.save(path)
  mine = HammingIndex.load(path) if appended else HammingIndex(index.codes, index.names)
  mine = mine.add(index.codes[:1], ["mine"])
  HammingIndex(index.codes[::-1], index.names[::-1]).save(other)
  write, close = file.write_atomically, file.IndexWriter.close

  def come():
    if other.exists():
      os.replace(other, path)

  with monkeypatch.context() as patch:
    if appended:
      patch.setattr(file.IndexWriter, "close", lambda self: close(self) or come())
    else:
      patch.setattr(file, "write_atomically", lambda *a: write(*a) or come())
    mine.save(path)
  assert not other.exists() and "mine" not in HammingIndex.load(path).names
  mine = mine.remove(mine.names[:1])
  mine.save(path)
  require_equal(HammingIndex.load(path), mine)


def test_columns_take_the_dtypes_of_the_index(tmp_path, rng):
  """So that no number changes when the file is written anew."""
  path = tmp_path / "a"

  def items(count, first):
    names = [f"{first}{i}" for i in range(count)]
    return rng.integers(0, 256, (count, 2), dtype=np.uint8), names

  columns = {"score": np.zeros(3000, np.float32), "level": np.zeros(3000, np.int16)}
  HammingIndex(*items(3000, "a"), columns=columns).save(path)
  index = HammingIndex.load(path)
  for method in ("add", "update"):
    call = getattr(index, method)
    for name, wrong in (("score", np.full(2, 0.1)), ("level", np.array([300, 70_000]))):
      good = {"score": np.float16([0.5, 2]), "level": np.uint8([1, 255])}
      with pytest.raises(
        InputError, match=rf"column {name} is \w+64, in the index it is"
      ) as caught:
        call(*items(2, "b"), columns=good | {name: wrong})
      assert "\n" not in str(caught.value)
    index = call(*items(2, method), columns=good)
    for name, column in columns.items():
      assert index.columns[name].dtype == column.dtype
    index.save(path)
    require_equal(HammingIndex.load(path), index)
  index = index.add(
    *items(6000, "c"), columns={"score": np.ones(6000, bool), "level": np.full(6000, 255, np.uint8)}
  )
  index.save(path)  # anew
  require_equal(HammingIndex.load(path), index)
  assert len(index.add(np.zeros((0, 2), np.uint8), [], columns={"score": [], "level": []})) == 9004


def test_codes_of_two_encoders_are_not_mixed(index):
  ours = HammingIndex(index.codes, index.names, about={"encoder": {"digest": "a" * 64}})
  assert ours.encoder_digest == "a" * 64
  assert index.encoder_digest is None
  assert len(ours.add(index.codes[:1], ["x"], encoder="a" * 64)) == 204
  with pytest.raises(InputError, match="codes of encoder bbbbbbbbbbbb are given to an index of"):
    ours.add(index.codes[:1], ["x"], encoder="b" * 64)
  with pytest.raises(InputError, match="mean nothing"):
    ours.update(index.codes[:1], ["x"], encoder="b" * 64)


@pytest.mark.parametrize("engine", ["jax", "faiss"])
def test_numbers_of_numpy_are_plain_numbers(tmp_path, index, engine):
  about = {"a": np.float32(0.5), "b": [np.int64(3)], "c": np.arange(2), "d": (1,), 5: tmp_path}
  for bits in (np.int64(16), np.uint8(16), 16.0, np.float32(16), np.array(16)):
    made = HammingIndex(index.codes, index.names, num_bits=bits, about=about)
    made.save(tmp_path / "a")
    found = HammingIndex.load(tmp_path / "a")
    require_equal(found, made)
    assert type(found.num_bits) is int
    assert found.about == {"a": 0.5, "b": [3], "c": [0, 1], "d": [1], "5": str(tmp_path)}
  queries = index.codes[:3]
  expected = index.search(queries, 3, engine=engine)
  for k in (np.int64(3), np.uint8(3), np.array(3), 3.0):
    for a, b in zip(index.search(queries, k, engine=engine), expected, strict=True):
      np.testing.assert_array_equal(a, b)
  assert len(index.radius_search(queries, np.int64(2))) == 3


def test_what_is_on_the_device_is_sent_once(index, mesh, monkeypatch):
  sent = []
  put = jax.device_put
  monkeypatch.setattr(jax, "device_put", lambda x, *a, **b: sent.append(np.shape(x)) or put(x, *a))
  monkeypatch.setenv(choice.VARIABLE, "jax")
  for _ in range(3):
    index.search(index.codes[:2], 5, engine="jax")
    index.search(index.codes[:2], 5, engine="jax", mesh=mesh)
    index.radius_search(index.codes[:2], 5)
  assert sent.count((203, 2)) == 1
  other = index.remove(index.names[:1])
  assert other.search(index.codes[:1], 1, engine="jax").distances[0, 0] > 0
  assert sent.count((202, 2)) == 1


@pytest.mark.parametrize("there", [b"", b"another program's file"])
def test_a_save_replaces_any_other_file(tmp_path, index, there):
  index.save(tmp_path / "a")
  loaded = HammingIndex.load(tmp_path / "a")
  (tmp_path / "b").write_bytes(there)
  loaded.save(tmp_path / "b")
  assert HammingIndex.load(tmp_path / "b").names == index.names


def test_an_interrupted_save_leaves_the_old_file(tmp_path, index, monkeypatch):
  path = tmp_path / "a"
  index.save(path)
  before = path.read_bytes()

  def stop(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(os, "replace", stop)
  with pytest.raises(KeyboardInterrupt):
    HammingIndex(index.codes[:2], index.names[:2]).save(path)
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_where_faiss_cannot_be_imported_jax_serves(monkeypatch):
  monkeypatch.setitem(sys.modules, "faiss", None)
  hamming_index._has_faiss.cache_clear()
  try:
    with choice.kernels("jax"):
      assert HammingIndex(CODES, "abc").search(CODES, 1).indices.shape == (3, 1)
  finally:
    hamming_index._has_faiss.cache_clear()


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


@pytest.mark.parametrize(
  ("kind", "options"),
  [
    ("ivf", {"num_cells": 21}),
    ("ivf", {"num_cells": -1}),
    ("ivf", {"num_probes": 0}),
    ("hnsw", {"degree": 0}),
    ("hnsw", {"degree": 1}),
    ("hnsw", {"degree": 10**9}),
    ("hnsw", {"effort": 0}),
    ("hnsw", {"effort": 1.5}),
    ("multi_hash", {"num_tables": 0}),
    ("multi_hash", {"num_tables": 33}),
    ("multi_hash", {"key_bits": 40}),
    ("multi_hash", {"key_bits": -1}),
    ("multi_hash", {"flips": -1}),
    ("multi_hash", {"num_tables": 1, "key_bits": 32, "flips": 9}),
  ],
)
def test_options_that_faiss_cannot_take_are_refused(kind, options):
  index = HammingIndex(np.arange(80, dtype=np.uint8).reshape(20, 4), ["x"] * 20)
  with pytest.raises(InputError, match=rf"{[*options][-1]} is {[*options.values()][-1]}"):
    index.to_faiss(kind, **options)


@pytest.mark.parametrize(
  ("kind", "options"),
  [
    ("ivf", {"num_cells": 20, "num_probes": np.int64(99)}),
    ("hnsw", {"degree": 2, "effort": 1}),
    ("multi_hash", {"num_tables": 32, "key_bits": 1}),
    ("multi_hash", {"num_tables": 1, "key_bits": 32, "flips": 2}),
    ("multi_hash", {"flips": 0}),
  ],
)
def test_options_at_the_ends_of_their_ranges(kind, options):
  index = HammingIndex(np.arange(80, dtype=np.uint8).reshape(20, 4), ["x"] * 20)
  assert index.to_faiss(kind, **options).search(index.codes[:1], 1)[1].shape == (1, 1)


CODES = np.zeros((3, 2), np.uint8)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: HammingIndex(CODES, ["a"]), "3 codes and 1 names"),
    (lambda: HammingIndex(CODES.astype(int), "abc"), "codes is int64"),
    (lambda: HammingIndex(CODES, [1, 2, 3]), "name 1 is not a string"),
    (lambda: HammingIndex(CODES, None), "names is NoneType; give one string"),
    (
      lambda: HammingIndex(CODES, "abc", columns={"x": np.ones((3, 2))}).add(
        CODES, "def", columns={"x": np.ones((3, 4))}
      ),
      r"column x has rows of shape \(4,\), the index of \(2,\)",
    ),
    (lambda: HammingIndex(CODES, "abc", num_bits=17), r"17 bits need \[n, 3\]"),
    (lambda: HammingIndex(CODES, "abc").add(np.zeros((1, 3), np.uint8), "d"), "differ in width"),
    (lambda: HammingIndex(CODES, "abc").search(CODES[:, :1], 1), "differ in width"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, 4), "k is 4, expected 1 to 3"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, 0), "k is 0"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, 1, engine="x"), "engine 'x'"),
    (lambda: HammingIndex(CODES, "abc").radius_search(CODES, -1), "radius is -1"),
    (lambda: HammingIndex(CODES, "abc").to_faiss("tree"), "kind 'tree'"),
    (lambda: HammingIndex(CODES, "abc").to_faiss("flat", degree=3), "no option degree"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, 1.5), "k is 1.5, expected a whole number"),
    (lambda: HammingIndex(CODES, "abc").search(CODES, True), "k is True"),
    (lambda: HammingIndex(CODES, "abc", num_bits=15.5), "num_bits is 15.5"),
    (lambda: HammingIndex(CODES, "abc", about={"x": float("nan")}), "kept as JSON"),
    (lambda: HammingIndex(CODES, "abc", about={"x": object()}), "kept as JSON"),
    (lambda: HammingIndex(CODES, ["a", "b", "\ud800"]), "not text that UTF-8 can hold"),
    (lambda: HammingIndex(CODES, "abc", columns={"x": [1]}), r"column x is int64 of shape \(1,\)"),
    (lambda: HammingIndex(CODES, "abc", columns={"x": [*"abc"]}), "expected numbers"),
    (lambda: HammingIndex(CODES, "abc", columns={"names": [1] * 3}), "cannot be called 'names'"),
    (lambda: HammingIndex(CODES, "abc").add(CODES, "abc", columns={"x": [1] * 3}), "columns x are"),
    (lambda: HammingIndex(CODES, "abc").remove(["b", "d"]), "no item 'd' \\(1 of 2"),
    (lambda: HammingIndex(CODES, "abc").update(CODES, "aba"), "'a' is given twice"),
    (lambda: HammingIndex.load("/nowhere/x"), "/nowhere/x cannot be read"),
    (lambda: HammingIndex(CODES, "abc").save("/nowhere/x"), "/nowhere/x cannot be written"),
    (lambda: HammingIndex(CODES, "abc").save(""), "names no file; give one"),
    (
      lambda: HammingIndex(CODES, "abc", columns={"x": np.ones(3, np.clongdouble)}),
      "expected numbers",
    ),
  ],
)
def test_bad_input_is_one_clear_line(call, words):
  with pytest.raises(InputError, match=words) as caught:
    call()
  assert "\n" not in str(caught.value)


def test_what_the_caller_writes_later_changes_no_index(rng):
  buffer = np.zeros((3, 8), np.uint8)
  number = np.arange(3)
  found = HammingIndex(buffer, ["a", "b", "c"], num_bits=60, columns={"n": number})
  of_a_view = HammingIndex(buffer[1:].view(), ["b", "c"])
  more = found.add(buffer[:1], ["d"], columns={"n": number[:1]})
  buffer[:], number[:] = 255, 9
  for index in (found, of_a_view, more):
    assert not index.codes.any() and not index.codes.flags.writeable
  assert found.columns["n"].tolist() == [0, 1, 2] and more.columns["n"].tolist() == [0, 1, 2, 0]
  given = np.zeros((3, 8), np.uint8)
  given.flags.writeable = False
  assert HammingIndex(given, ["a", "b", "c"]).codes is given  # nobody can write: nothing is copied


def test_copies_have_all_in_memory_and_belong_to_no_file(tmp_path, rng):
  codes = rng.integers(0, 256, (5, 2), dtype=np.uint8)
  index = HammingIndex(codes, list("abcde"), columns={"n": np.arange(5)}, about={"x": [1]})
  index.save(tmp_path / "i.index")
  loaded = (
    HammingIndex.load(tmp_path / "i.index").remove("b").add(codes[:1], ["f"], columns={"n": [7]})
  )
  for one in (index, HammingIndex.load(tmp_path / "i.index"), loaded):
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
      np.testing.assert_array_equal(again.codes, one.codes)
      assert list(again.names) == list(one.names) and again.about == one.about
      assert again.num_bits == one.num_bits
      np.testing.assert_array_equal(again.columns["n"], one.columns["n"])
  (tmp_path / "i.index").unlink()
  again.save(tmp_path / "again.index")
  assert list(HammingIndex.load(tmp_path / "again.index").names) == list("acdef")


def test_columns_of_pandas_are_columns():
  pandas = pytest.importorskip("pandas")
  columns = pandas.DataFrame({"year": [2001, 2002, 2003]})
  assert HammingIndex(CODES, "abc", columns=columns).columns["year"].tolist() == [2001, 2002, 2003]


def test_padding_bits_of_a_query_are_refused(rng):
  codes = rng.integers(0, 256, (9, 2), dtype=np.uint8) & np.uint8([255, 240])
  index = HammingIndex(codes, [str(i) for i in range(9)], num_bits=12)
  wrong = codes[:2] | np.uint8([0, 1])
  for search in (lambda: index.search(wrong, 1), lambda: index.radius_search(wrong, 1)):
    with pytest.raises(InputError, match="padding bits after bit 12 are set"):
      search()


def test_what_is_derived_while_another_thread_saves_is_saved_whole(rng, tmp_path, monkeypatch):
  """The file's new state and the old rows must never meet in one index."""
  path = tmp_path / "a.index"
  codes = rng.integers(0, 256, (60, 2), dtype=np.uint8)
  names = [f"n{i}" for i in range(60)]
  HammingIndex(codes[:40], names[:40]).save(path)
  changed = HammingIndex.load(path).remove(names[:10]).add(codes[40:], names[40:])
  made = []
  real = file.IndexWriter.close

  def derive_and_close(writer):  # as a thread may that has its turn here
    made.append(changed.add(codes[:1], ["extra"]))
    real(writer)

  monkeypatch.setattr(file.IndexWriter, "close", derive_and_close)
  monkeypatch.setattr(file.StoredIndex, "wasted", lambda self: True)  # compacted: rows move
  changed.save(path)
  monkeypatch.undo()
  assert made
  made[-1].save(path)
  found = HammingIndex.load(path)
  assert list(found.names) == [*names[10:], "extra"]
  np.testing.assert_array_equal(found.codes, np.concatenate([codes[10:], codes[:1]]))
