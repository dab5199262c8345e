"""The index file: appended to, never rewritten in place, and read where it is touched.

docs/index_format.md describes it byte for byte.
"""

import contextlib
import hashlib
import json
import mmap
import os
import pathlib
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol, cast

import numpy as np

from udh_jax.errors import InputError, require
from udh_jax.files import followed, write_atomically
from udh_jax.retrieval.index.names import LazyNames, Names

try:
  import fcntl
except ImportError:  # Windows, where a file that is open cannot be replaced either
  fcntl = None  # type: ignore[assignment]

MAGIC = b"UDHINDEX"
VERSION = 2
BLOCK = 1 << 20  # bytes under one checksum
REMEDY = "; make it again, or fetch it again."

_START = struct.Struct("<8sI")  # magic, version
_SLOT = struct.Struct("<QQQ32s")  # number of the commit; place, length and SHA-256 of its record
_SLOTS = (512, 1024)  # a sector each, so that one is written whole or not at all
_FIRST = 4096  # where commits begin
_ALIGN = 64
_OWN = ("codes", "name_ends", "names", "removed")  # parts that are not columns
_PIECE = 1 << 16  # rows copied at once


class BusyError(InputError):
  """Another process writes to the file."""


class Checked:
  """An array in a mapped file, whose bytes are checked when they are first touched.

  It slices like an array; ``part[:]`` is all of it, as a read-only array.
  """

  def __init__(self, data: np.ndarray, dtype: np.dtype, shape: tuple, sums: list, what: str):
    self._data, self._sums, self._what = data, np.asarray(sums, np.uint32), what
    self._seen = np.zeros(len(sums), bool)
    self._array = data.view(dtype).reshape(shape)
    self.dtype, self.shape = self._array.dtype, self._array.shape

  def __len__(self) -> int:
    return len(self._array)

  def __getitem__(self, key):
    if isinstance(key, slice):
      first, last, step = key.indices(len(self))
      if step != 1:
        return self[:][key]
    else:
      first = range(len(self))[key]
      last = first + 1
    row = self._array.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))
    self._check(first * row, max(first, last) * row)
    return self._array[key]

  def __array__(self, dtype=None, copy=None):
    return np.array(self[:], dtype=dtype, copy=copy)

  def _check(self, start: int, stop: int) -> None:
    for block in range(start // BLOCK, -(-stop // BLOCK)):
      if not self._seen[block]:
        found = zlib.crc32(self._data[block * BLOCK : (block + 1) * BLOCK].data)
        require(
          found == self._sums[block],
          lambda: f"{self._what} do not match their checksum: it is damaged{REMEDY}",
        )
        self._seen[block] = True


class Segment(NamedTuple):
  """What one commit added.

  Attributes:
    num_rows: How many items.
    parts: ``codes``, ``name_ends``, ``names`` and the columns, by name.
    removed: Rows, counted through all segments, that the commit took away. int64 array.
  """

  num_rows: int
  parts: dict[str, Checked]
  removed: np.ndarray


class StoredIndex:
  """One state of an index file.

  Attributes:
    path: Of the file.
    version: Tells this state from every other of a file at this path: device, inode, number and
      SHA-256 of the newest commit, for a file may be overwritten in place.
    num_bits: Length of the codes.
    about: JSON values by name.
    segments: From the first commit to the last.
    num_rows: Items in all segments, removed ones too.
    live: Rows that are not removed, ascending. int64 array, or None where none is removed.
    end: Where the next commit is to begin.
    columns: Names of the columns.
  """

  def __init__(self, path: pathlib.Path, file):
    """Reads the newest state of an open file.

    Raises:
      InputError: If it is not an index, cut short, damaged or of another version.
    """
    self.path = path
    status = os.fstat(file.fileno())
    start = file.read(_FIRST)
    require(start.startswith(MAGIC), f"{path} is not an index of udh_jax{REMEDY}")
    require(len(start) >= _FIRST, f"{path} is cut short{REMEDY}")
    number, place, length, digest = _newest(file, path)
    self.version = (status.st_dev, status.st_ino, number, digest)
    self.end = _aligned(place + length)
    require(status.st_size >= place + length, f"{path} is cut short{REMEDY}")
    mapped = mmap.mmap(file.fileno(), place + length, access=mmap.ACCESS_READ)
    data = np.frombuffer(mapped, np.uint8)
    self._mapped = mapped
    self.segments, records = [], []
    while place:
      text = data[place : place + length].tobytes()
      require(hashlib.sha256(text).digest() == digest, f"The header of {path} is damaged{REMEDY}")
      try:
        record = json.loads(text)
        self.segments.append(self._segment(record, data))
        before, length, digest = record["previous"]
        digest = bytes.fromhex(digest)
        if not 0 <= before < place:
          raise ValueError
        place = before
      except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"The header of {path} is not as its format says{REMEDY}") from error
      records.append(record)
    self.segments.reverse()
    require(records, f"The header of {path} is damaged{REMEDY}")
    self.num_bits, self.about = records[0]["num_bits"], records[0]["about"]
    self.columns = [name for name in self.segments[0].parts if name not in _OWN]
    self.num_rows = sum(segment.num_rows for segment in self.segments)
    removed = [segment.removed for segment in self.segments if len(segment.removed)]
    self.live = None
    if removed:
      kept = np.ones(self.num_rows, bool)
      kept[np.concatenate(removed)] = False
      self.live = np.flatnonzero(kept)
    require(len(self) == records[0]["num_items"], f"{path} is damaged{REMEDY}")

  def _segment(self, record, data) -> Segment:
    num_rows, num_bytes = record["num_rows"], -(-record["num_bits"] // 8)
    parts = {}
    for part in record["parts"]:
      dtype, shape = np.dtype(part["dtype"]), tuple(part["shape"])
      size = dtype.itemsize * int(np.prod(shape, dtype=np.int64))
      at = data[part["offset"] : part["offset"] + size]
      what = f"The {part['name']} of {self.path}"
      parts[part["name"]] = Checked(at, dtype, shape, part["crc32"], what)
    removed = parts.pop("removed")[:].astype(np.int64)
    shapes = {name: part.shape for name, part in parts.items() if name != "names"}
    if shapes["codes"] != (num_rows, num_bytes) or any(s[0] != num_rows for s in shapes.values()):
      raise ValueError
    return Segment(num_rows, parts, removed)

  @classmethod
  def open(cls, path: str | os.PathLike) -> "StoredIndex":
    """The newest state of the file at ``path``."""
    with open(path, "rb", buffering=0) as file:
      return cls(pathlib.Path(path), file)

  def __len__(self) -> int:
    return self.num_rows if self.live is None else len(self.live)

  def empty(self) -> "Batch":
    """No items, with the dtypes and shapes of rows that codes and columns are read with."""
    columns = {}
    for name in self.columns:
      parts = [segment.parts[name] for segment in self.segments]
      # An older program may have appended rows of other dtypes.
      dtype = np.result_type(*{part.dtype for part in parts})
      columns[name] = np.zeros((0, *parts[0].shape[1:]), dtype)
    codes = np.zeros((0, *self.segments[0].parts["codes"].shape[1:]), np.uint8)
    return Batch(codes, Names.of([]), columns)

  def live_rows(self) -> np.ndarray:
    """Rows that are not removed, ascending. int64 array."""
    return np.arange(self.num_rows) if self.live is None else self.live

  def array(self, name: str) -> np.ndarray:
    """Codes or a column, of the live rows; in place where there is one segment, none removed."""
    return _live(np.concatenate, [segment.parts[name][:] for segment in self.segments], self.live)

  def names(self) -> Names:
    """Names of the live rows."""
    several = [names_of(segment) for segment in self.segments]
    return several[0] if len(several) == 1 and self.live is None else LazyNames(several, self.live)

  def pieces(self, part: str) -> Iterator[Any]:
    """Codes, names or a column of the live rows, some rows at a time."""
    first = 0
    for segment in self.segments:
      whole = names_of(segment) if part == "names" else segment.parts[part]
      for start in range(0, segment.num_rows, _PIECE):
        piece = whole[start : min(start + _PIECE, segment.num_rows)]
        if self.live is not None:
          a, b = np.searchsorted(self.live, [first + start, first + start + len(piece)])
          rows = self.live[a:b] - first - start
          piece = piece.take(rows) if part == "names" else piece[rows]
        yield piece
      first += segment.num_rows

  def wasted(self) -> bool:
    """Whether so much was appended or removed that one segment would be worth writing.

    What is copied then was written since the last time, up to a factor of three, so that it costs
    an item only so many copies however many saves there are.
    """
    removed = self.num_rows - len(self)
    later = self.num_rows - self.segments[0].num_rows
    return 2 * (removed + later) > self.num_rows + 2048 or len(self.segments) > 4096


def _live(join, arrays, live):
  array = arrays[0] if len(arrays) == 1 else join(arrays)
  array = array if live is None else array[live]
  array.flags.writeable = False
  return array


def names_of(segment: Segment) -> Names:
  """Names of a segment's items."""
  return Names(*(cast(np.ndarray, segment.parts[part]) for part in ("names", "name_ends")))


def file_version(path: str | os.PathLike) -> tuple[int, int, int, bytes] | None:
  """The `StoredIndex.version` of the file at ``path`` now, read in microseconds; None if absent.

  Raises:
    InputError: If it is not an index of this version, or damaged.
  """
  try:
    with open(path, "rb", buffering=0) as file:
      status = os.fstat(file.fileno())
      number, _, _, digest = _newest(file, path)
      return status.st_dev, status.st_ino, number, digest
  except OSError:
    return None


def read_version(path: str | os.PathLike) -> int:
  """The version of the format of the file at ``path``.

  Raises:
    InputError: If it cannot be read, or is not an index.
  """
  try:
    with open(path, "rb", buffering=0) as file:
      start = file.read(_START.size)
  except OSError as error:
    raise InputError(
      f"The index {os.fspath(path)} cannot be read ({error.strerror}); make one with "
      "udh-jax encode."
    ) from error
  require(start.startswith(MAGIC), f"{os.fspath(path)} is not an index of udh_jax{REMEDY}")
  require(len(start) == _START.size, f"{os.fspath(path)} is cut short{REMEDY}")
  return _START.unpack(start)[1]


def _newest(file, path) -> tuple[int, int, int, bytes]:
  """Number of the newest commit, and place, length and digest of its record.

  The file is unbuffered, so that it is read again where it was read in the middle of a write.
  """
  for _ in range(5):
    slots = []
    for place in _SLOTS:
      file.seek(place)
      slots.append(file.read(_SLOT.size + 32))
    if all(hashlib.sha256(slot[: _SLOT.size]).digest() == slot[_SLOT.size :] for slot in slots):
      return max(_SLOT.unpack(slot[: _SLOT.size]) for slot in slots)
    time.sleep(0.001)
  raise InputError(f"The header of {path} is damaged{REMEDY}")


class _Part:
  """Writes one part, in pieces, and says what a record has to say of it."""

  def __init__(self, file, name):
    self._file, self._name = file, name
    self._sums, self._sum, self._filled = [], 0, 0
    _put(file, bytes(-file.tell() % _ALIGN))
    self._offset, self._rows = file.tell(), 0

  def write(self, array) -> None:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    _put(self._file, data)
    self._rows += len(array)
    while len(data):
      piece = data[: BLOCK - self._filled]
      self._sum = zlib.crc32(piece, self._sum)
      self._filled += len(piece)
      data = data[len(piece) :]
      if self._filled == BLOCK:
        self._close()

  def _close(self):
    self._sums.append(self._sum)
    self._sum = self._filled = 0

  def description(self, dtype, row_shape) -> dict[str, Any]:
    if self._filled:
      self._close()
    return {
      "name": self._name,
      "dtype": np.dtype(dtype).str,
      "shape": [self._rows, *row_shape],
      "offset": self._offset,
      "crc32": self._sums,
    }


class Source(Protocol):
  """Items to write, which may be more than memory holds."""

  def pieces(self, part: str) -> Iterator[Any]:
    """Codes, names (`Names`) or the column ``part``, some rows at a time."""


class Batch(NamedTuple):
  """Items to write.

  Attributes:
    codes: uint8 array of shape ``[n, bytes]``.
    names: Of the items.
    columns: Arrays of shape ``[n, ...]`` by name.
  """

  codes: np.ndarray
  names: Names
  columns: Mapping[str, np.ndarray]

  def pieces(self, part: str) -> Iterator[Any]:
    """All of a part, as `StoredIndex.pieces` gives it."""
    yield getattr(self, part) if part in ("codes", "names") else self.columns[part]


def fitting_columns(
  columns: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray], place: Any
) -> dict[str, np.ndarray]:
  """Columns with the dtypes of those that are there, in their order.

  Args:
    columns: To be added. Arrays of shape ``[n, ...]`` by name.
    like: Those that are there.
    place: What they are given to, in messages.

  Returns:
    The columns; each number is what it was.

  Raises:
    InputError: If names or shapes of rows differ, or a number is none of the dtype that is there.
  """
  require(
    set(columns) == set(like),
    f"HammingIndex: columns {', '.join(columns) or 'none'} are given to {place}, which has "
    f"{', '.join(like) or 'none'}; give the same.",
  )
  fitting = {}
  for name, there in like.items():
    column = columns[name]
    require(
      column.shape[1:] == there.shape[1:],
      f"HammingIndex: column {name} has rows of shape {column.shape[1:]}, {place} of "
      f"{there.shape[1:]}; give the same.",
    )
    with np.errstate(invalid="ignore"):
      fitting[name] = column.astype(there.dtype, copy=False)
    require(
      np.can_cast(column.dtype, there.dtype, "safe") or np.array_equal(fitting[name], column),
      f"HammingIndex: column {name} is {column.dtype}, in {place} it is {there.dtype}, which "
      f"cannot hold all of its numbers; give {there.dtype}.",
    )
  return fitting


def _put(file, data) -> None:
  """Writes all of ``data``, which an unbuffered file may do in several steps."""
  data = memoryview(data)
  while len(data):
    data = data[file.write(data) :]


def _write_commit(file, source: Source, like: Batch, removed, record, number):
  """Writes items and their record from where ``file`` stands, and then the slot.

  Args:
    file: Open for writing, at a multiple of `_ALIGN`.
    source: Gives the items in pieces.
    like: Gives dtypes and shapes of rows.
    removed: Rows of earlier segments to take away.
    record: ``num_bits``, ``about``, ``num_items`` and ``previous``.
    number: Of the commit.
  """
  parts = []

  def write(name, arrays, dtype, row_shape=()):
    part = _Part(file, name)
    for array in arrays:
      part.write(np.asarray(array).astype(dtype, copy=False))
    parts.append(part.description(dtype, row_shape))

  def ends():
    base = np.uint64(0)
    for names in source.pieces("names"):
      found = names.ends[:]
      yield found + base
      base += found[-1] if len(found) else np.uint64(0)

  write("codes", source.pieces("codes"), "|u1", like.codes.shape[1:])
  write("name_ends", ends(), "<u8")
  write("names", (names.text[:] for names in source.pieces("names")), "|u1")
  for name, column in like.columns.items():
    write(name, source.pieces(name), column.dtype.newbyteorder("<"), column.shape[1:])
  write("removed", [removed], "<u8")
  record = {"num_rows": parts[0]["shape"][0], **record, "parts": parts}
  _put(file, bytes(-file.tell() % _ALIGN))
  place = file.tell()
  text = json.dumps(record).encode()
  _put(file, text)
  file.flush()
  os.fsync(file.fileno())
  slot = _SLOT.pack(number, place, len(text), hashlib.sha256(text).digest())
  file.seek(_SLOTS[number % 2])
  _put(file, slot + hashlib.sha256(slot).digest())
  file.flush()
  os.fsync(file.fileno())


def write_index(
  path: str | os.PathLike,
  source: Source,
  like: Batch,
  *,
  num_items: int,
  num_bits: int,
  about: Mapping[str, Any],
) -> StoredIndex:
  """Writes an index of one segment, whole or not at all.

  Args:
    path: File to write, replaced if there.
    source: Gives the items in pieces.
    like: Gives dtypes and shapes of rows.
    num_items: How many there are.
    num_bits: Length of the codes.
    about: JSON values by name.

  Returns:
    What was written.

  Raises:
    InputError: If the file cannot be written, or another process writes to it.
  """
  record = {"num_items": num_items, "num_bits": num_bits, "about": about}
  file = _replace(path, source, like, record)
  try:
    file.seek(0)
    return StoredIndex(pathlib.Path(path), file)
  finally:
    _let_go(file)


def _replace(path, source: Source, like: Batch, record, held=None):
  """Writes an index of one segment in the place of what is at ``path``.

  Args:
    path: File to write.
    source: Gives the items in pieces.
    like: Gives dtypes and shapes of rows.
    record: ``num_items``, ``num_bits`` and ``about``.
    held: The file that is there, where this process has locked it; else it is locked meanwhile.

  Returns:
    The new file, open and locked: nobody else can have written to it.
  """
  with _writing(path), contextlib.ExitStack() as locks, contextlib.ExitStack() as opened:
    there = locks.enter_context(locked(path)) if held is None else held
    copies: list[Any] = []

    def write(file):
      empty = _SLOT.pack(0, 0, 0, bytes(32))
      start = bytearray(_FIRST)
      start[: _START.size] = _START.pack(MAGIC, VERSION)
      for place in _SLOTS:
        start[place : place + _SLOT.size + 32] = empty + hashlib.sha256(empty).digest()
      _put(file, start)
      first = record | {"previous": [0, 0, ""]}
      _write_commit(file, source, like, np.zeros(0, np.uint64), first, 1)
      if held is not None:
        _require_at(path, held)
      elif there is None:  # it may have come meanwhile
        locks.enter_context(locked(path))
      if fcntl is not None:  # the lock of the temporary file goes on with its copy
        copy = os.fdopen(os.dup(file.fileno()), "r+b", buffering=0)
        opened.callback(_let_go, copy)
        copies.append(copy)

    write_atomically(path, write)
    opened.pop_all()
    return copies[0] if copies else open(path, "r+b", buffering=0)


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[Any]:
  """Keeps other processes from writing to the file at ``path``, so that it can be replaced.

  Yields:
    The open file; None where there is none, it may not be opened, or the system has no locks.

  Raises:
    BusyError: If another process writes to it.
  """
  file = _open_locked(path)
  try:
    yield file
  finally:
    if file is not None:
      _let_go(file)


def _open_locked(path):
  while fcntl is not None:
    try:
      file = _open_any(path)
    except OSError:
      return None
    if not _lock(path, file):
      file.close()
      return None
    if _is_at(path, file):
      return file
    _let_go(file)  # it was replaced before it was locked
  return None


def _open_any(path):
  """Opens a file for a lock; to write if that may be, which a file system in the network asks."""
  try:
    descriptor = os.open(path, os.O_RDWR)
  except PermissionError:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
  return os.fdopen(descriptor, "rb", buffering=0)


def _lock(path, file) -> bool:
  """Locks an open file; False where the system or the file system has no locks.

  Raises:
    BusyError: If another process writes to it; it is closed then.
  """
  if fcntl is None:
    return False
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError as error:
    file.close()
    raise BusyError(
      f"Another process is writing to {os.fspath(path)} ({error.strerror}); wait until it has "
      "ended."
    ) from error
  except OSError:  # the file system has none
    return False
  return True


def _let_go(file) -> None:
  """Closes a file and gives up its lock, which a mapping would keep beyond its closing."""
  if fcntl is not None and not file.closed:
    with contextlib.suppress(OSError):
      fcntl.flock(file, fcntl.LOCK_UN)
  file.close()


def _is_at(path, file) -> bool:
  """Whether an open file is the one at ``path``."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
  except FileNotFoundError:
    return False


def _require_at(path, file) -> None:
  require(
    _is_at(path, file),
    f"{os.fspath(path)} was replaced or removed by another program while this one was writing to "
    "it, so that nothing more is written; start again with the file that is there now.",
  )


@contextlib.contextmanager
def _writing(path):
  try:
    yield
  except OSError as error:
    raise InputError(
      f"The index {os.fspath(path)} cannot be written ({error.strerror}); make room or give "
      "another path."
    ) from error


def _aligned(place: int) -> int:
  return place + -place % _ALIGN


class IndexWriter:
  """Appends to an index file; what it writes appears commit by commit.

  One process writes at a time; those that read keep the state that they opened.

  Attributes:
    stored: The newest state.
  """

  def __init__(self, path: str | os.PathLike):
    """Opens a file.

    Raises:
      InputError: If it cannot be read, is of an older format, or another process writes to it.
    """
    self._path = pathlib.Path(path)
    require(
      read_version(path) == VERSION,
      f"{path} has another version of the index format; load and save it first.",
    )
    self._open()

  def _open(self) -> None:
    while True:
      with _writing(self._path):
        self._file = open(self._path, "r+b", buffering=0)  # noqa: SIM115
      _lock(self._path, self._file)  # or without, where there are none
      if _is_at(self._path, self._file):
        break  # else it was replaced before it was locked
      self.close()
    self._read()

  def _read(self) -> None:
    try:
      self._file.seek(0)
      self.stored = StoredIndex(self._path, self._file)
    except BaseException:
      self.close()
      raise

  @classmethod
  def create(
    cls, path: str | os.PathLike, like: Batch, *, num_bits: int, about: Mapping[str, Any]
  ) -> "IndexWriter":
    """Puts an empty index in the place of what is at ``path``, and opens it.

    Others are kept from writing all the while.

    Args:
      path: File to write, replaced if there.
      like: Gives dtypes and shapes of rows.
      num_bits: Length of the codes.
      about: JSON values by name.

    Raises:
      InputError: If it cannot be written, or another process writes to it.
    """
    self = cls.__new__(cls)
    self._path = pathlib.Path(path)
    none = Batch(like.codes[:0], Names.of([]), {n: c[:0] for n, c in like.columns.items()})
    record = {"num_items": 0, "num_bits": num_bits, "about": about}
    self._file = _replace(path, none, none, record)
    self._read()
    return self

  def __enter__(self) -> "IndexWriter":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Lets other processes write."""
    _let_go(self._file)

  def append(
    self, batch: Batch, *, removed: Any = (), about: Mapping[str, Any] | None = None
  ) -> None:
    """Adds items and takes others away, in one step that is done or not done.

    Args:
      batch: Items to add, n >= 0; columns of other dtypes are cast where no number changes.
      removed: Rows of `stored` to take away, counted through all segments; each is there.
      about: In place of what there is.

    Raises:
      InputError: If the columns are others, it cannot be written, or another program has put
        another file in its place; the file is then as it was.
    """
    stored, removed = self.stored, np.asarray(removed, np.int64)
    columns = fitting_columns(batch.columns, stored.empty().columns, self._path)
    batch = batch._replace(columns=columns)
    _require_at(self._path, self._file)
    newest = _newest(self._file, self._path)
    require(
      (newest[0], newest[3]) == stored.version[2:],
      f"{self._path} was overwritten by another program while this one was writing to it, so that "
      "nothing more is written; start again with the file that is there now.",
    )
    record = {
      "num_items": len(stored) + len(batch.codes) - len(removed),
      "num_bits": stored.num_bits,
      "about": stored.about if about is None else about,
      "previous": [newest[1], newest[2], newest[3].hex()],
    }
    with _writing(self._path):
      try:
        self._file.seek(stored.end)
        self._file.truncate()  # what an interrupted commit has left
        _write_commit(self._file, batch, batch, removed, record, newest[0] + 1)
      except BaseException:
        self._undo(newest, stored.end)
        raise
    _require_at(self._path, self._file)  # it may have been replaced meanwhile
    self._file.seek(0)
    self.stored = StoredIndex(self._path, self._file)

  def _undo(self, newest, end) -> None:
    """Takes back the bytes of a commit that did not come to its end."""
    with contextlib.suppress(OSError):
      if _newest(self._file, self._path) == newest:
        self._file.truncate(end)

  def compact(self) -> None:
    """Writes the file anew as one segment; those that have it open keep what they see.

    Raises:
      InputError: If it cannot be written, or another program has put another file in its place.
    """
    stored = self.stored
    _require_at(self._path, self._file)
    record = {"num_items": len(stored), "num_bits": stored.num_bits, "about": stored.about}
    file = _replace(self._path, stored, stored.empty(), record, self._file)
    self.close()
    self._file = file
    self._read()

  def move_to(self, path: str | os.PathLike) -> None:
    """Puts the file in the place of what is at ``path``, if anything, and closes it.

    Where ``path`` is a symbolic link, the file that it names is replaced; that has to be on the
    same file system.

    Raises:
      InputError: If another process writes to what is there, or it cannot be replaced, or another
        program has put another file in the place of this one.
    """
    target = followed(path)
    with _writing(path), locked(path):
      _require_at(self._path, self._file)
      if fcntl is None:  # Windows moves no open file
        self.close()
      os.replace(self._path, target)
    self.close()
