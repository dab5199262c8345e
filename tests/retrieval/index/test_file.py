"""The file of an index: commits that are there or not, whatever happens in the middle of one."""

import errno
import fcntl
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


def replaced(path, num_items=500):
  """Another index in the place of one, put there by a program that looks at no locks."""
  other = path.with_name("other")
  codes = np.zeros((num_items, 2), np.uint8)
  columns = {"size": np.zeros(num_items, np.uint32)}
  HammingIndex(codes, [f"other {i}" for i in range(num_items)], columns=columns).save(other)
  os.replace(other, path)
  return path.read_bytes()


def test_a_file_overwritten_in_place_is_another(path, rng):
  """As cp does it: the same inode, and both at their first commit."""
  index = HammingIndex.load(path)
  more = batch(rng, ["g"])
  larger = index.add(more.codes, more.names, columns=more.columns)
  other = path.with_name("other")
  first = batch(rng, list("uvwxyz"))
  HammingIndex(first.codes, first.names, columns=first.columns, about={"n": 0}).save(other)
  assert other.stat().st_size == path.stat().st_size
  version = file_version(path)
  with IndexWriter(path) as writer:
    path.write_bytes(other.read_bytes())
    assert file_version(path) != version
    with pytest.raises(InputError, match="was overwritten by another program"):
      writer.append(more)
  assert path.read_bytes() == other.read_bytes()
  larger.save(path)
  assert [name for name, _ in contents(path)[1]] == list("abcdefg")


def test_a_whole_write_is_refused_while_another_process_writes(path, rng):
  before = path.read_bytes()
  whole = batch(rng, ["x"])
  index = HammingIndex(whole.codes, whole.names, columns=whole.columns)
  with IndexWriter(path) as writer:
    writer.append(batch(rng, ["g"]))
    link = path.with_name("link")
    link.symlink_to(path)
    for name in (path, link):
      with pytest.raises(InputError, match=r"Another process is writing to .*wait until") as caught:
        index.save(name)
      assert "\n" not in str(caught.value)
    assert [name for name, _ in contents(path)[1]] == list("abcdefg")
    writer.append(batch(rng, ["h"]))
  assert len(contents(path)[1]) == 8 and len(before) < path.stat().st_size
  index.save(path)
  assert [name for name, _ in contents(path)[1]] == ["x"]
  with IndexWriter(path):  # a save keeps no lock
    pass


def test_nobody_writes_while_a_whole_file_is_written(path, rng, monkeypatch):
  """Neither to the old one, nor to the new one before its writer knows what it has written."""
  put, write, refused = file._put, file.write_atomically, []

  def busy():
    try:
      IndexWriter(path).close()
    except InputError as error:
      refused.append("Another process is writing" in str(error))
    else:
      refused.append(False)

  whole = batch(rng, ["x"])
  index = HammingIndex(whole.codes, whole.names, columns=whole.columns)
  with monkeypatch.context() as patch:
    patch.setattr(file, "_put", lambda *a: busy() or put(*a))
    index.save(path)
  assert len(refused) > 5 and all(refused)
  with IndexWriter(path) as writer:
    writer.append(batch(rng, ["y"]))
    refused.clear()
    with monkeypatch.context() as patch:
      patch.setattr(file, "write_atomically", lambda *a: write(*a) or busy())
      writer.compact()
    assert refused == [True]
    assert [name for name, _ in contents(path)[1]] == ["x", "y"]


def test_a_file_that_came_while_a_whole_one_was_written_is_not_lost(tmp_path, rng, monkeypatch):
  path, put, writers = tmp_path / "a", file._put, []
  first = batch(rng, list("abc"))
  HammingIndex(first.codes, first.names, columns=first.columns).save(tmp_path / "b")

  def come(*arguments):
    if not writers:
      os.replace(tmp_path / "b", path)
      writers.append(IndexWriter(path))
    put(*arguments)

  with monkeypatch.context() as patch:
    patch.setattr(file, "_put", come)
    with pytest.raises(InputError, match="Another process is writing"):
      HammingIndex(first.codes[:1], ["x"], columns={"size": first.columns["size"][:1]}).save(path)
  writers[0].append(batch(rng, ["d"]))
  writers[0].close()
  assert [name for name, _ in contents(path)[1]] == list("abcd")
  assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_that_was_replaced_is_neither_written_to_nor_replaced(path, rng):
  with IndexWriter(path) as writer:
    writer.append(batch(rng, ["g"]))
    other = replaced(path)
    for call in (lambda: writer.append(batch(rng, ["lost"])), writer.compact):
      with pytest.raises(InputError, match="was replaced or removed by another program") as caught:
        call()
      assert "\n" not in str(caught.value)
    assert path.read_bytes() == other
    with pytest.raises(InputError, match="was replaced or removed"):
      writer.move_to(path.with_name("moved"))
  with IndexWriter(path) as writer:
    path.unlink()
    with pytest.raises(InputError, match="was replaced or removed"):
      writer.append(batch(rng, ["lost"]))
  assert not path.exists()


@pytest.mark.parametrize("step", ["append", "compact"])
def test_a_file_that_is_replaced_in_the_middle_of_a_write_is_left_alone(
  path, rng, monkeypatch, step
):
  put, others = file._put, []

  def replacing(*arguments):
    monkeypatch.undo()
    others.append(replaced(path))
    put(*arguments)

  with IndexWriter(path) as writer:
    writer.append(batch(rng, ["g"]))
    monkeypatch.setattr(file, "_put", replacing)
    with pytest.raises(InputError, match="was replaced or removed"):
      writer.append(batch(rng, ["lost"])) if step == "append" else writer.compact()
  assert path.read_bytes() == others[0]
  assert [p.name for p in path.parent.iterdir()] == ["a.index"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_failed_commit_takes_nothing_from_a_file_put_in_its_place(path, rng, monkeypatch, when):
  """The disk is full, and the file was replaced before the commit or in the middle of it."""
  others = []

  def full(*_):
    monkeypatch.undo()
    if when == "meanwhile":
      others.append(replaced(path))
    raise OSError(28, "No space left on device")

  with IndexWriter(path) as writer:
    if when == "before":
      others.append(replaced(path))
    monkeypatch.setattr(file, "_put", full)
    with pytest.raises(InputError, match=r"cannot be written|was replaced or removed"):
      writer.append(batch(rng, ["lost"]))
  assert path.read_bytes() == others[0]


def test_a_writer_starts_anew_and_moves_without_letting_go(path, rng):
  like = batch(rng, ["x"])
  part = path.with_name("part")
  part.write_bytes(b"something else")
  with IndexWriter.create(part, like, num_bits=16, about={"n": 2}) as writer:
    assert contents(part) == ({"n": 2}, [])
    with pytest.raises(InputError, match="Another process is writing"):
      IndexWriter.create(part, like, num_bits=16, about={})
    writer.append(like)
    with IndexWriter(path), pytest.raises(InputError, match="Another process is writing"):
      writer.move_to(path)
    writer.append(batch(rng, ["y"]))
    writer.move_to(path)
  assert [name for name, _ in contents(path)[1]] == ["x", "y"]
  assert [p.name for p in path.parent.iterdir()] == ["a.index"]
  with IndexWriter(path) as writer:
    writer.append(batch(rng, ["z"]))


class NoLocks:
  """`fcntl` on a file system without locks."""

  LOCK_EX, LOCK_NB, LOCK_UN = fcntl.LOCK_EX, fcntl.LOCK_NB, fcntl.LOCK_UN

  def __init__(self, code):
    self._code = code

  def flock(self, *_):
    raise OSError(self._code, os.strerror(self._code))


@pytest.mark.parametrize(
  "locks", [None, NoLocks(errno.ENOLCK), NoLocks(errno.ENOTSUP)], ids=["none", "enolck", "enotsup"]
)
def test_where_there_are_no_locks_all_is_written_all_the_same(locks, path, rng, monkeypatch):
  monkeypatch.setattr(file, "fcntl", locks)
  index = HammingIndex.load(path)
  more = batch(rng, ["g"])
  index = index.add(more.codes, more.names, columns=more.columns)
  index.save(path)
  with IndexWriter(path) as writer:
    writer.append(batch(rng, ["h"]))
    writer.compact()
    writer.append(batch(rng, ["i"]))
    HammingIndex(more.codes, more.names, columns=more.columns).save(path.with_name("b"))
  with IndexWriter.create(path.with_name("c"), more, num_bits=16, about={}) as writer:
    writer.append(more)
    writer.move_to(path.with_name("b"))
  assert [name for name, _ in contents(path)[1]] == list("abcdefghi")
  assert [name for name, _ in contents(path.with_name("b"))[1]] == ["g"]


def test_a_column_keeps_its_dtype_or_is_refused(path, rng):
  def sized(size):
    return batch(rng, list("gh"))._replace(columns={"size": np.array(size)})

  with IndexWriter(path) as writer:
    for wrong in ([1 << 32, 5], [0.75, 1.0], [np.nan, 1.0], np.int64([-1, 2])):
      with pytest.raises(InputError, match=r"column size is \w+, in .* it is uint32") as caught:
        writer.append(sized(wrong))
      assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"column size has rows of shape \(1,\)"):
      writer.append(sized(np.uint32([[1], [2]])))
    with pytest.raises(InputError, match="columns none are given to"):
      writer.append(batch(rng, ["g"])._replace(columns={}))
    writer.append(sized(np.uint8([7, 255])))
    writer.append(sized(np.array([True, False])))
    writer.append(Batch(np.zeros((0, 2), np.uint8), Names.of([]), {"size": np.zeros(0)}))
    column = HammingIndex.load(path).columns["size"]
    assert column.dtype == np.uint32 and column[-4:].tolist() == [7, 255, 1, 0]
    assert all(part.parts["size"].dtype == np.uint32 for part in writer.stored.segments)
    before = contents(path)
    writer.compact()
    assert contents(path) == before


def test_what_an_older_program_appended_reads_the_same_after_compaction(path, rng, monkeypatch):
  """It cast no columns, so that the segments of a file may differ."""
  with IndexWriter(path) as writer:
    with monkeypatch.context() as patch:
      patch.setattr(file, "fitting_columns", lambda columns, *_: dict(columns), raising=False)
      writer.append(batch(rng, ["g"])._replace(columns={"size": np.array([0.75])}))
    before = contents(path)
    assert before[1][-1][1][1] == 0.75
    writer.append(batch(rng, ["h"]))
    writer.compact()
  assert contents(path)[1][:-1] == before[1]


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
        HammingIndex(more.codes, more.names, columns=more.columns).save(path.with_name("b"))
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
