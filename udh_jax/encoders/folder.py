"""A folder of pictures in, an index of their codes out, which is then kept in step with it."""

import collections
import concurrent.futures
import contextlib
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from udh_jax.data.pictures import (
  NO_PICTURES,
  OutOfReachError,
  decode_picture,
  is_gone,
  list_pictures,
  open_regular,
  passed_over,
)
from udh_jax.duplicates.looks import NUM_BITS, look_of
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.loading import absolute
from udh_jax.encoders.pair import PairEncoder
from udh_jax.encoders.reading import ahead, encode_batch
from udh_jax.errors import InputError, require
from udh_jax.files import followed, keep_mode, require_writable, write_text
from udh_jax.machine import num_cores
from udh_jax.printable import printable
from udh_jax.retrieval.index import MAGIC, HammingIndex, IndexWriter, Names, StoredIndex
from udh_jax.retrieval.index.file import Batch, BusyError

SAVE_EVERY = 30.0  # seconds between two saves of what is done
SHOW_EVERY = 5.0
# What an index keeps of each file beside its code: dtype and shape of a row.
COLUMNS = {
  "size": (np.uint64, ()),  # bytes
  "mtime": (np.int64, ()),  # time of change, ns
  "digest": (np.uint8, (16,)),  # the first half of the SHA-256 of the content
  "width": (np.uint32, ()),
  "height": (np.uint32, ()),
  "look": (np.uint8, (2, NUM_BITS // 8)),  # see `udh_jax.duplicates.looks`
}
_STATES_AT_ONCE = 4096


class Changes(NamedTuple):
  """How a folder differs from an index of it.

  Attributes:
    listed: Files of the folder, sorted.
    rows: Row of the index (counted through its segments) of each listed file, -1 for new ones.
      int64 array.
    same: Whether size and time of change of each listed file are as noted. bool array.
    gone: Rows whose files are no longer there. int64 array.
    others: Files of other kinds, see `udh_jax.data.pictures.passed_over`.
  """

  listed: Names
  rows: np.ndarray
  same: np.ndarray
  gone: np.ndarray
  others: str = ""


class LookedInto(NamedTuple):
  """What was found in one file.

  Attributes:
    name: Relative to the folder.
    old: Its row of the index, -1 if it is new.
    values: Of `COLUMNS`, by name; those that ``known`` lacks.
    picture: uint8 ``[size, size, 3]``, to be encoded; None where the code is known.
    known: Row of the index whose file had the same content, or -1.
    problem: Why it cannot be read, or "".
    away: Whether it may be a sound picture all the same, so that what is known of it stays.
  """

  name: str
  old: int
  values: dict[str, Any]
  picture: np.ndarray | None = None
  known: int = -1
  problem: str = ""
  away: bool = False


def require_pictures(encoder: Encoder | PairEncoder) -> None:
  """Refuses an encoder that was trained on features, which picture files do not hold."""
  require(
    encoder.about["picture_size"],
    lambda: (
      f"The encoder was trained on features of {encoder.about['image_width']} numbers an image, "
      "not on pictures; give such features to its images(...) from Python."
    ),
  )


def is_noted(folder: pathlib.Path, noted: str | None) -> bool:
  """Whether a folder is the one that an index or a store names as that of its pictures."""
  return bool(noted and os.path.realpath(noted) == str(folder.resolve()))


def encode_folder(
  encoder: Encoder | PairEncoder,
  folder: str | os.PathLike,
  output: str | os.PathLike,
  *,
  source: str = "",
  batch_size: int = 64,
  update: bool = False,
  verify: bool = False,
) -> HammingIndex:
  """Encodes the pictures in a folder and writes the index, or brings an index up to date.

  Anew (without ``update``), what is done is kept beside ``output`` (``.partial``) and taken up by
  the next call, unless the encoder has changed; ``output`` appears at the end. Where ``output`` is
  a symbolic link, all this is done to the file that it names. With ``update``,
  ``output`` itself is added to, and is a whole index at every moment. Unreadable files are left out
  and listed in ``output`` + ``.unreadable.txt``; they are tried again at the next update. A file
  that is there and cannot be read (no permission, a disk that fails, a link that leads nowhere)
  keeps the item that it has; one that was read and is no picture any more loses it at the end.

  Args:
    encoder: From `load_encoder`.
    folder: Nested as it may be.
    output: File to write.
    source: Where the encoder came from; noted in the index, for ``udh-jax search``.
    batch_size: Pictures encoded at once.
    update: Encode only new and changed files, and forget vanished ones, where ``output`` is there.
      A file whose size and time of change are as noted is not read. A file with the content of
      one that has vanished or changed keeps its code.
    verify: With ``update``, read all files and compare their contents.

  Returns:
    The index; names are paths relative to ``folder``, with forward slashes. New and changed items
    come after the others.

  Raises:
    InputError: If the folder is missing or holds no readable picture, ``output`` cannot be
      written or another process writes to it, the encoder takes no pictures or is not the one of
      the index to update, or that is of another folder, which lacks more than half of its pictures.
  """
  require_pictures(encoder)
  folder, output = pathlib.Path(folder), pathlib.Path(output)
  require(batch_size >= 1, f"The batch size is {batch_size}; give 1 or more.")
  require(folder.is_dir(), f"{folder} is not a folder; give the folder of the pictures.")
  target = followed(output)
  partial = target.with_name(f"{target.name}.partial")
  require_free(output)
  for path in (output, partial, unreadable_list(output)):
    require_writable(path)
  update = update and output.is_file() and output.stat().st_size > 0
  about = {
    "encoder": {"source": absolute(source), "digest": encoder.digest},
    "folder": str(folder.resolve()),
  }
  bits = encoder.about["bits"]
  if update:
    _require_followed(output, encoder)
  else:
    _tell_what_goes(output, folder)
  with IndexWriter(output) if update else _take_up(partial, about, bits) as writer:
    if not update:
      keep_mode(target, partial)
    try:
      summary = _follow(
        writer,
        encoder,
        folder,
        output,
        about=about,
        batch_size=batch_size,
        update=update,
        verify=update and verify,
      )
    except InputError:
      if not update and not len(writer.stored.names()):  # nothing is there to go on from
        partial.unlink(missing_ok=True)
      raise
    if not update or writer.stored.wasted():
      writer.compact()
    if not update:
      writer.move_to(output)
  index = HammingIndex.load(output)
  _tell(f"{output}: {len(index):,} pictures, {bits} bits{summary}")
  return index


def _tell(text: str) -> None:
  print(printable(text), flush=True)


def require_free(output: pathlib.Path) -> None:
  """Refuses to write an index in the place of a file that is something else, such as a picture."""
  if output.is_file():
    with output.open("rb") as file:
      beginning = file.read(len(MAGIC))
    require(
      beginning in (b"", MAGIC),
      f"{output} is there and is not an index; remove it, or name another file.",
    )


def _tell_what_goes(output: pathlib.Path, folder: pathlib.Path) -> None:
  """Says so where an index of another folder is to be replaced."""
  if not output.is_file() or not output.stat().st_size:
    return
  with contextlib.suppress(InputError):  # damaged, or of an older format
    old = HammingIndex.load(output)
    other = old.about.get("folder")
    if isinstance(other, str) and other != str(folder.resolve()):
      _tell(f"{output} is there, an index of {len(old):,} pictures in {other}; it is replaced.")


def _require_followed(output, encoder) -> None:
  """Refuses to update what another encoder made, or an index that knows nothing of its files."""
  index = HammingIndex.load(output)
  anew = "run the same command without --update, which encodes all pictures again"
  made = index.encoder_digest
  if made not in (None, encoder.digest):
    raise InputError(
      f"{output} was made by another encoder ({made[:12]}, not {encoder.digest[:12]}), and codes "
      f"of two encoders do not agree; {anew} and keeps the old index until the new one is complete."
    )
  require(
    made is not None and all(name in index.columns for name in COLUMNS),
    f"{output} does not say which files it was made of, so that it cannot be updated; {anew}.",
  )


def _take_up(partial, about, bits) -> IndexWriter:
  """Opens what an interrupted call with the same encoder has done, or an empty index in its place.

  It is locked before it is looked at: a call that is still running keeps what it has done.
  """
  if partial.exists():
    try:
      writer = IndexWriter(partial)
      stored = writer.stored
      same = isinstance(stored.about, dict) and all(
        stored.about.get(key) == about[key] for key in ("encoder", "folder")
      )
      if same and all(name in stored.columns for name in COLUMNS):
        return writer
      writer.close()
      _tell(f"{partial} is of another encoder or folder; starting anew.")
    except BusyError:
      raise
    except InputError as error:
      _tell(f"{error} Starting anew.")
  columns = {name: np.zeros((0, *shape), dtype) for name, (dtype, shape) in COLUMNS.items()}
  like = Batch(np.zeros((0, -(-bits // 8)), np.uint8), Names.of([]), columns)
  return IndexWriter.create(partial, like, num_bits=bits, about=about)


def _follow(writer, encoder, folder, output, *, about, batch_size, update, verify) -> str:
  """Brings the file of ``writer`` in step with the folder; returns what was done, in words."""
  stored = writer.stored
  changes = changes_of(stored, folder)
  num_files = len(changes.listed)
  todo = np.arange(num_files) if verify else np.flatnonzero(~changes.same)
  total = len(todo)
  if changes.others:
    _tell(changes.others)
  require(num_files, f"{folder} {NO_PICTURES}")
  if update or total < num_files:
    words = "are unchanged" if update else "were done before"
    _tell(f"{num_files - total:,} of {num_files:,} pictures {words}")
  pending = _Items(encoder.about["bits"])
  removed: list[int] = []  # with the next commit
  lost: list[int] = []  # with the last one

  def save(gone=()):
    if len(pending) or removed or len(gone) or writer.stored.about != about:
      writer.append(pending.take(), removed=np.sort([*removed, *gone]), about=about)
      removed.clear()

  size = encoder.about["picture_size"]
  fill = min(batch_size, max(1, len(todo)))  # one shape, compiled once
  old_rows = _OldRows(stored, changes, todo)
  counts: collections.Counter[str] = collections.Counter()
  bad, done = {}, 0
  started = saved = shown = time.monotonic()
  for batch in look_ahead(folder, changes, todo, old_rows.by_content, size, batch_size):
    done += len(batch)
    batch = [found for found in batch if not (found.known >= 0 and not found.values)]
    pictures = [found.picture for found in batch if found.picture is not None]
    if pictures:
      codes = iter(encode_batch(encoder, pictures, fill))
    for found in batch:
      if found.problem:
        bad[found.name] = found.problem
        if found.old >= 0:
          counts["kept unread" if found.away else "removed as unreadable"] += 1
          lost += [] if found.away else [found.old]
        continue
      if found.known >= 0:
        code, values = old_rows[found.known]
        pending.add(found.name, code, values | found.values)
        counts["touched" if found.known == found.old else "moved"] += 1
      else:
        pending.add(found.name, next(codes), found.values)
        counts["new" if found.old < 0 else "changed"] += 1
      if found.old >= 0:
        removed.append(found.old)
    now = time.monotonic()
    if now - shown >= SHOW_EVERY:
      rate = done / (now - started)
      left = (total - done) / rate
      _tell(f"{done:,}/{total:,} pictures  {rate:.0f}/s  {left:.0f} s left")
      shown = now
    if now - saved >= SAVE_EVERY:
      save()
      saved = now
  list_unreadable(output, bad, num_files)
  require(
    len(writer.stored) + len(pending) > len(removed) + len(changes.gone) + len(lost),
    f"None of the {num_files} pictures in {folder} can be read; see {output}.unreadable.txt.",
  )
  save([*changes.gone, *lost])
  if not update:
    return f", {done / max(time.monotonic() - started, 1e-9):.0f} pictures/s"
  counts["removed"] = len(changes.gone)
  kinds = ("new", "changed", "moved", "touched", "removed", "removed as unreadable", "kept unread")
  counted = [f"{counts[kind]:,} {kind}" for kind in kinds if counts[kind]]
  return f" ({', '.join(counted) or 'nothing new'})"


class _Items:
  """Items that wait to be written."""

  def __init__(self, bits):
    self._num_bytes = -(-bits // 8)
    self._names, self._codes, self._values = [], [], []

  def __len__(self) -> int:
    return len(self._names)

  def add(self, name, code, values) -> None:
    self._names.append(name)
    self._codes.append(code)
    self._values.append(values)

  def take(self) -> Batch:
    """All of them; none is left."""
    columns = {
      name: np.array([values[name] for values in self._values], dtype).reshape(-1, *shape)
      for name, (dtype, shape) in COLUMNS.items()
    }
    codes = np.array(self._codes, np.uint8).reshape(-1, self._num_bytes)
    batch = Batch(codes, Names.of(self._names), columns)
    self._names, self._codes, self._values = [], [], []
    return batch


class _OldRows:
  """Codes and columns of an index, as they were when its update began.

  Attributes:
    by_content: Rows by content, of the files that are gone or are to be looked into.
  """

  def __init__(self, stored: StoredIndex, changes: Changes, todo: np.ndarray):
    self._stored = stored
    rows = np.concatenate([changes.gone, changes.rows[todo]])
    rows = np.sort(rows[rows >= 0])
    self.by_content: dict[bytes, list[int]] = {}
    if len(rows):
      digests = self._arrays["digest"][np.searchsorted(stored.live_rows(), rows)]
      for digest, row in zip(digests, rows.tolist(), strict=True):
        self.by_content.setdefault(digest.tobytes(), []).append(row)

  @functools.cached_property
  def _arrays(self):
    return {name: self._stored.array(name) for name in ("codes", *COLUMNS)}

  def __getitem__(self, row: int) -> tuple[np.ndarray, dict[str, Any]]:
    item = int(np.searchsorted(self._stored.live_rows(), row))
    return self._arrays["codes"][item], {name: self._arrays[name][item] for name in COLUMNS}


def unreadable_list(output: pathlib.Path) -> pathlib.Path:
  """Where the files are listed that could not be read."""
  return output.with_name(f"{output.name}.unreadable.txt")


def list_unreadable(output: pathlib.Path, bad: Mapping[str, str], num_files: int) -> None:
  """Lists files that could not be read beside an output, or removes an older list.

  Args:
    output: Beside which `unreadable_list` is written.
    bad: Reason by name.
    num_files: Of all files.
  """
  listed = unreadable_list(output)
  if bad:
    lines = [f"{printable(name)}: {printable(bad[name])}\n" for name in sorted(bad)]
    write_text(listed, "".join(lines))
    _tell(f"{len(bad):,} of {num_files:,} files cannot be read; they are listed in {listed}")
  else:
    listed.unlink(missing_ok=True)


def changes_of(stored: StoredIndex, folder: pathlib.Path) -> Changes:
  """Compares a folder with an index by names, sizes and times of change; reads no file.

  Args:
    stored: State of the index.
    folder: Of the pictures.

  Raises:
    InputError: If a folder in it cannot be listed; if it has no picture; or if it is not the folder
      that the index names and has fewer than half of the pictures in it.
  """
  counted: collections.Counter[str] = collections.Counter()
  files = list_pictures(folder, counted)
  others = passed_over(counted)
  require(
    files or not len(stored),
    f"There are no pictures in {folder}, and {len(stored):,} in its index; is a disk not mounted? "
    "If they are gone for good, delete the index.",
  )
  states = _states(folder, files)
  there = states[:, 0] >= 0
  if not there.all():  # gone since they were listed
    files = [file for file, is_there in zip(files, there, strict=True) if is_there]
    states = states[there]
  listed, live = Names.of(files), stored.live_rows()
  if not len(live):
    none = np.full(len(listed), -1)
    return Changes(listed, none, np.zeros(len(listed), bool), live, others)
  items = stored.names().find(listed)
  found, noted = int((items >= 0).sum()), stored.about.get("folder")
  require(
    is_noted(folder, noted) or 2 * found >= len(live),
    f"{folder} has {found:,} of the {len(live):,} pictures in the index, which is of {noted}; give "
    "that folder or another --output, or leave out --update, which encodes all pictures anew.",
  )
  at = np.maximum(items, 0)
  as_noted = (stored.array("size")[at] == states[:, 0]) & (
    stored.array("mtime")[at] == states[:, 1]
  )
  gone = np.ones(len(live), bool)
  gone[items[items >= 0]] = False
  rows = np.where(items >= 0, live[at], -1)
  return Changes(listed, rows, (items >= 0) & as_noted, live[gone], others)


def _states(folder, files) -> np.ndarray:
  """Size and time of change of each file, int64 ``[n, 2]``; -1 for those that are gone."""
  prefix = os.path.join(os.fspath(folder), "")

  def some(start):
    states = []
    for name in files[start : start + _STATES_AT_ONCE]:
      try:
        status = os.stat(prefix + name)
        states.append((status.st_size, status.st_mtime_ns))
      except OSError as error:  # the reason is found when it is opened
        states.append((-1, -1) if is_gone(prefix + name, error) else (0, 0))
    return states

  with concurrent.futures.ThreadPoolExecutor(8) as pool:  # a disk in the network makes them wait
    parts = list(pool.map(some, range(0, len(files), _STATES_AT_ONCE)))
  return np.array([state for part in parts for state in part], np.int64).reshape(-1, 2)


def look_ahead(
  folder: pathlib.Path,
  changes: Changes,
  todo: np.ndarray,
  by_content: Mapping[bytes, Sequence[int]],
  size: int,
  batch_size: int,
) -> Iterator[list[LookedInto]]:
  """Looks into files in threads, some batches ahead.

  Args:
    folder: Where the files are.
    changes: From `changes_of`.
    todo: Positions of files in ``changes.listed``. int64 array.
    by_content: Rows of the index by content; see `look_into`.
    size: Side of the square that each picture becomes.
    batch_size: Files of a batch.

  Yields:
    What was found in the files of a batch, in their order.
  """

  def look(position):
    name, row = changes.listed[position], int(changes.rows[position])
    return look_into(folder, name, row, bool(changes.same[position]), by_content, size)

  return ahead(look, todo.tolist(), batch_size, num_cores())


def look_into(
  folder: pathlib.Path,
  name: str,
  old: int,
  as_noted: bool,
  by_content: Mapping[bytes, Sequence[int]],
  size: int,
) -> LookedInto:
  """Reads one file, and decodes it unless its content is known.

  Args:
    folder: Where it is.
    name: Relative to it.
    old: Its row of the index, -1 if it is new.
    as_noted: Whether its size and time of change are those of that row.
    by_content: Rows of the index by the first 16 bytes of the SHA-256 of their files.
    size: Side of the square that a picture becomes.
  """
  values: dict[str, Any] = {}

  def whole(picture, width, height):
    values.update(width=width, height=height, look=look_of(picture))

  try:
    with open_regular(folder / name) as file:
      status = os.fstat(file.fileno())
      digest = hashlib.file_digest(file, "sha256").digest()[:16]
      values.update(
        size=status.st_size, mtime=status.st_mtime_ns, digest=np.frombuffer(digest, np.uint8)
      )
      if rows := by_content.get(digest):
        known = old if old in rows else rows[-1]
        unchanged = known == old and as_noted
        return LookedInto(name, old, {} if unchanged else values, known=known)
      file.seek(0)
      return LookedInto(name, old, values, decode_picture(file, size, whole=whole))
  except OSError as error:
    away = not is_gone(folder / name, error)
    return LookedInto(name, old, {}, problem=error.strerror or str(error), away=away)
  except ValueError as error:
    return LookedInto(name, old, {}, problem=str(error), away=isinstance(error, OutOfReachError))
