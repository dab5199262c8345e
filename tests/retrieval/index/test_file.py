"""The file of an index: commits that are there or not, whatever happens in the middle of one."""

import hashlib
import itertools
import json
import os
import resource
import shutil
import struct
import zlib

import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.retrieval.index import HammingIndex, IndexWriter, StoredIndex, file, file_version
from udh_jax.retrieval.index.file import Batch
from udh_jax.retrieval.index.names import Names


def batch(rng, names):
  codes = rng.integers(0, 256, (len(names), 2), dtype=np.uint8)
  return Batch(codes, Names.of(names), {"size": rng.integers(0, 99, len(names), dtype=np.uint32)})


def contents(path):
  index = HammingIndex.load(path)
  rows = zip(index.codes.tolist(), index.columns["size"].tolist(), strict=True)
  return index.about, list(zip(index.names, rows, strict=True))


@pytest.fixture
def path(tmp_path, rng):
  first = batch(rng, list("abcdef"))
  path = tmp_path / "a.index"
  HammingIndex(first.codes, first.names, columns=first.columns, about={"n": 0}).save(path)
  return path


def test_a_commit_cut_off_at_any_write_leaves_the_state_before_it(path, rng, tmp_path, monkeypatch):
  """The file as it is on the disk after half of each write, read as another process would."""
  before = contents(path)
  copy, seen = tmp_path / "copy", []
  put = file._put

  def torn(target, data):
    half = len(data) // 2
    if half and len(data) != 88:  # a slot lies in one sector, which is written whole
      put(target, data[:half])
      target.flush()
      shutil.copy(path, copy)
      seen.append(contents(copy))
      put(target, data[half:])
    else:
      put(target, data)
    target.flush()
    shutil.copy(path, copy)
    seen.append(contents(copy))
    with IndexWriter(copy) as writer:  # and written to again
      writer.append(batch(np.random.default_rng(1), ["later"]))
    assert contents(copy)[1][:-1] == seen[-1][1]

  writer = IndexWriter(path)
  with monkeypatch.context() as patch:
    patch.setattr(file, "_put", _only_for(writer._file, torn, put))
    writer.append(batch(rng, ["g", "h"]), removed=[1, 4], about={"n": 1})
  writer.close()
  after = contents(path)
  assert after[0] == {"n": 1}
  assert [name for name, _ in after[1]] == list("acdfgh")
  assert after[1][:4] == [row for row in before[1] if row[0] not in "be"]
  changed = seen.index(after)
  assert changed == len(seen) - 1 > 10
  assert all(state == before for state in seen[:changed])


def _only_for(ours, torn, put):
  return lambda target, data: torn(target, data) if target is ours else put(target, data)


def test_readers_keep_the_state_they_opened(path, rng):
  old = HammingIndex.load(path)
  version = file_version(path)
  with IndexWriter(path) as writer:
    writer.append(batch(rng, ["g"]), removed=[0])
    middle = HammingIndex.load(path)
    assert file_version(path) != version
    writer.compact()
    assert list(HammingIndex.load(path).names) == list("bcdefg")
    writer.append(batch(rng, ["h"]))
  assert list(old.names) == list("abcdef")  # read only now
  assert list(middle.names) == list("bcdefg")
  assert len(middle.codes) == len(middle.columns["size"]) == 6
  assert list(HammingIndex.load(path).names) == list("bcdefgh")


def test_compacted_files_are_the_same_whatever_led_to_them(path, rng, tmp_path):
  parts = [batch(rng, [f"{i}{j}" for j in range(3)]) for i in range(4)]
  with IndexWriter(path) as writer:
    for part in parts:
      writer.append(part)
    writer.append(parts[0], removed=np.arange(7, 10))
    writer.compact()
  index = HammingIndex.load(path)
  HammingIndex(
    np.array(index.codes), list(index.names), columns=dict(index.columns), about=index.about
  ).save(tmp_path / "b")
  assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_pieces_are_joined_over_their_borders(tmp_path, rng, monkeypatch):
  monkeypatch.setattr(file, "_PIECE", 4)
  monkeypatch.setattr(file, "BLOCK", 5)
  path, first = tmp_path / "a", batch(rng, list("abcdef"))
  HammingIndex(first.codes, first.names, columns=first.columns).save(path)
  with IndexWriter(path) as writer:
    writer.append(batch(rng, list("ghijklmnop")), removed=[0, 2, 3, 5])
    writer.append(batch(rng, ["q"]), removed=[6, 9, 10, 11, 12, 13])
    before = contents(path)
    writer.compact()
  assert contents(path) == before
  assert [name for name, _ in before[1]] == list("behiopq")


def test_one_process_writes_at_a_time(path, rng):
  with IndexWriter(path), pytest.raises(InputError, match="Another process is writing"):
    IndexWriter(path)
  held = []
  for name in "gh":
    with IndexWriter(path) as writer:
      writer.append(batch(rng, [name]))
      held.append(writer.stored)  # reading on does not keep others from writing


def test_a_full_disk_leaves_the_file_as_it_was(path, rng):
  before = path.read_bytes()
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  more = batch(rng, [f"much longer {i}" for i in range(3000)])
  with IndexWriter(path) as writer:
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 30_000, limits[1]))
    try:
      with pytest.raises(InputError, match="cannot be written"):
        writer.append(more)
      assert path.read_bytes()[: len(before)] == before
      assert path.stat().st_size <= len(before) + 64
      assert len(contents(path)[1]) == 6
      with pytest.raises(InputError, match="cannot be written"):
        HammingIndex(more.codes, more.names, columns=more.columns).save(path)
      assert len(contents(path)[1]) == 6
    finally:
      resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.append(more)
  assert len(contents(path)[1]) == 3006
  assert [p.name for p in path.parent.iterdir()] == ["a.index"]


def test_a_header_that_lies_is_refused(path):
  """As its checksums are right, somebody has written it so."""
  data = path.read_bytes()
  _, place, length, _ = struct.unpack_from("<QQQ32s", data, 1024)
  record = json.loads(data[place : place + length])

  def changed(**values):
    return {**record, **values}

  for wrong in (
    [],
    {},
    changed(num_items=7),
    changed(num_rows=7),
    changed(num_bits=17),
    changed(num_bits="16"),
    changed(previous=[place, length, ""]),
    changed(parts=record["parts"][1:]),
    changed(parts=[{**part, "offset": 10**9} for part in record["parts"]]),
    changed(parts=[{**part, "dtype": "|O"} for part in record["parts"]]),
    changed(parts=[{**part, "shape": [-6, 2]} for part in record["parts"]]),
    changed(parts=[{**part, "crc32": None} for part in record["parts"]]),
  ):
    text = json.dumps(wrong).encode()
    slot = struct.pack("<QQQ32s", 1, place, len(text), hashlib.sha256(text).digest())
    new = bytearray(data[:place] + text)
    new[1024 : 1024 + 88] = slot + hashlib.sha256(slot).digest()
    path.write_bytes(new)
    with pytest.raises(InputError, match=r"as its format says|damaged") as caught:
      HammingIndex.load(path)
    assert "\n" not in str(caught.value)


def test_the_file_is_what_the_documentation_says(path):
  """Read again by the words of docs/index_format.md alone."""
  with IndexWriter(path) as writer:
    writer.append(batch(np.random.default_rng(3), ["ö", "h"]), removed=[2])
  data = path.read_bytes()
  assert data[:8] == b"UDHINDEX"
  assert int.from_bytes(data[8:12], "little") == 2
  slots = []
  for at in (512, 1024):
    assert hashlib.sha256(data[at : at + 56]).digest() == data[at + 56 : at + 88]
    slots.append(struct.unpack("<QQQ32s", data[at : at + 56]))
  assert [slot[0] for slot in slots] == [2, 1]
  _, place, length, digest = slots[0]
  assert place + length == len(data)
  names, removed = [], []
  while place:
    text = data[place : place + length]
    assert hashlib.sha256(text).digest() == digest
    record = json.loads(text)
    parts = {}
    for part in record["parts"]:
      assert part["offset"] % 64 == 0
      dtype = np.dtype(part["dtype"])
      count = int(np.prod(part["shape"]))
      parts[part["name"]] = np.frombuffer(data, dtype, count, part["offset"]).reshape(part["shape"])
      blocks = [parts[part["name"]].tobytes()] if count else []
      assert part["crc32"] == [zlib.crc32(block) for block in blocks]
    assert list(parts) == ["codes", "name_ends", "names", "size", "removed"]
    text = parts["names"].tobytes()
    ends = [0, *parts["name_ends"].tolist()]
    names = [text[a:b].decode() for a, b in itertools.pairwise(ends)] + names
    removed += parts["removed"].tolist()
    (place, length), digest = record["previous"][:2], bytes.fromhex(record["previous"][2])
  assert [name for row, name in enumerate(names) if row not in removed] == [*"abdef", "ö", "h"]


def test_opening_reads_no_more_than_the_header(path, rng, monkeypatch):
  names = [str(i) for i in range(100_000)]
  part = batch(rng, names)
  HammingIndex(part.codes, names, columns=part.columns).save(path)
  read = []
  check = zlib.crc32
  monkeypatch.setattr(file.zlib, "crc32", lambda data, *rest: read.append(len(data)) or check(data))
  monkeypatch.setattr(file, "BLOCK", file.BLOCK)
  index = HammingIndex.load(path)
  assert (len(index), read) == (100_000, [])
  assert index.names[50_000] == "50000"
  assert 0 < sum(read) < 2 * 800_000 + len("".join(names))
  assert index.codes.base is not None
  assert not index.codes.flags.writeable
  stored = StoredIndex.open(path)
  assert stored.array("codes").base is not None  # in place


def test_what_is_no_index_is_refused(tmp_path):
  (tmp_path / "a").write_bytes(b"UDHINDEX" + (9).to_bytes(4, "little") + bytes(100))
  with pytest.raises(InputError, match="has version 9"):
    HammingIndex.load(tmp_path / "a")
  with pytest.raises(InputError, match="cannot be read"):
    HammingIndex.load(tmp_path)
  assert file_version(tmp_path / "none") is None
  os.mkfifo(tmp_path / "pipe")
