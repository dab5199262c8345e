"""What is to be encoded: a folder or listing of pictures, cut into parts."""

import codecs
import collections
import functools
import hashlib
import io
import itertools
import json
import pathlib
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from udh_jax.data.pictures import (
  decode_picture,
  list_pictures,
  passed_over,
  picture_endings,
  read_picture,
)
from udh_jax.encoders.distributed.file_systems import (
  EXTRA,
  delete_file,
  file_system_of,
  files_in,
  folder_of,
  infos_in,
  joined,
  kind_of,
  open_parquet,
  write_file,
  write_table,
)
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.errors import InputError, require
from udh_jax.extras import require_extra
from udh_jax.records import ANYTHING, LIST, OBJECT, TEXT, require_fields, whole

VERSION = 1
UNREACHABLE = "could not be reached: "  # begins what is tried again at the next call
LEFT_OUT = "listing.parquet"  # in unreadable/: names that no part can hold
PART_SIZE = 10_000
_LISTED_AT_ONCE = 1_000_000  # rows of a file of our own listing
_COLUMNS = ("name", "path", "bytes")  # of a listing
_TRIES = 3  # to read a picture from a file system that fails


class Part(NamedTuple):
  """Some rows of a listing.

  Attributes:
    file: Parquet file, or the folder that it is in; a path or URL.
    start: First row.
    stop: One after the last.
    key: The file's name relative to that folder; "" where it is no folder.
  """

  file: str
  start: int
  stop: int
  key: str = ""


class Plan(NamedTuple):
  """What is encoded by what, and how it is cut into parts.

  Attributes:
    images: Folder or listing, as it was given.
    root: What relative paths of the listing are relative to; "" where pictures are in the listing.
    listing: SHA-256 of names and sizes of the listing's files; "" where it was made by ourselves.
    num_bits: Length of the codes.
    encoder: ``source`` and ``digest``.
    parts: In the order of the listing.
  """

  images: str
  root: str
  listing: str
  num_bits: int
  encoder: dict[str, str]
  parts: list[Part]

  @property
  def num_pictures(self) -> int:
    """Rows of all parts."""
    return sum(part.stop - part.start for part in self.parts)


def make_plan(
  encoder: Encoder | PairEncoder,
  images: str,
  output: str,
  *,
  source: str = "",
  root: str | None = None,
  part_size: int | None = None,
) -> Plan:
  """Cuts a listing into parts and notes them in ``output``; takes up what is noted there.

  Args:
    encoder: That is to encode.
    images: One of: a folder of pictures; a text file with a path or URL in each line (``.txt``); a
      Parquet file or a folder of them (``.parquet``), with columns ``path``, or ``name`` and
      ``bytes``; ``image`` may be a struct of ``bytes`` and ``path``, as Hugging Face writes it.
    output: Folder of the result, made where it is missing; all machines reach it by this path or
      URL.
    source: Where the encoder came from.
    root: What relative paths of a listing are relative to. None for that of the first call, or
      else the listing's folder. A folder of pictures takes none.
    part_size: Pictures of a part. A part is what is lost when a machine is. None for that of the
      first call, or else 10,000.

  Returns:
    The plan; that of the first call, where there was one.

  Raises:
    InputError: If there are no pictures, the listing lacks the columns, ``root`` is given with a
      folder of pictures, or ``output`` holds codes of another encoder or listing, or was begun with
      another root or size of parts than are given.
  """
  require(part_size is None or part_size >= 1, f"--part-size is {part_size}; give 1 or more.")
  made_by = {"source": source, "digest": encoder.digest}
  old = find_plan(output)
  if old is not None:
    require(
      old.encoder["digest"] == encoder.digest,
      f"{output} holds codes of another encoder (digest {old.encoder['digest'][:12]}, this one has "
      f"{encoder.digest[:12]}); give another folder.",
    )
    listing = "" if not old.listing else _fingerprint(_parquet_files(images) or [(images, "")])
    require(
      (old.images, old.listing) == (images, listing),
      f"{output} holds codes of another listing ({old.images}, or this one before it was changed); "
      "give another folder.",
    )
    _require_as_begun(old, output, root, part_size)
    return old
  files, fingerprint = _parquet_files(images), ""
  if files:
    fingerprint = _fingerprint(files)
    root = _folder_of(images) if root is None else root
  else:
    files, fingerprint, root = _own_listing(images, output, root)
  parts = [part for file in files for part in _cut(*file, part_size or PART_SIZE)]
  require(parts, f"There are no pictures in {images}.")
  num_bits = encoder.about["bits"]
  plan = Plan(images, root or "", fingerprint, num_bits, made_by, parts)
  text = json.dumps({"version": VERSION} | plan._asdict(), indent=1)
  write_file(output, "plan.json", text.encode())
  return plan


def _require_as_begun(old: Plan, output: str, root: str | None, part_size: int | None) -> None:
  """Refuses a root or size of parts that are given and are not those of the first call."""
  if root is not None:
    _require_listing(old.images, root, is_listing=bool(old.listing))
    require(
      file_system_of(root, "x") == file_system_of(old.root, "x"),
      f"{output} was begun with paths relative to {old.root}, now --root is {root}; give another "
      "folder for the codes.",
    )
  if part_size is not None:
    files = dict.fromkeys((part.file, part.key) for part in old.parts)
    most = max(part.stop - part.start for part in old.parts)
    require(
      [part for file in files for part in _cut(*file, part_size)] == old.parts,
      f"--part-size {part_size} would cut otherwise than {output} was begun, in parts of up to "
      f"{most:,} pictures; leave it out, or give another folder.",
    )


def _require_listing(images: str, root: str | None, *, is_listing: bool) -> None:
  require(
    root is None or is_listing,
    f"--root is {root}, but {images} is a folder of pictures, which needs none; leave it out.",
  )


def read_plan(output: str) -> Plan:
  """The plan that `make_plan` has noted.

  Raises:
    InputError: If there is none, or it is of another version.
  """
  plan = find_plan(output)
  if plan is None:
    raise InputError(f"{output} holds no codes of udh-jax encode --ray: it has no plan.json.")
  return plan


def find_plan(output: str) -> Plan | None:
  """The same; None where there is none."""
  file = joined(output, "plan.json")
  if kind_of(output, "plan.json") != "File":
    return None
  fs, path = file_system_of(output, "plan.json")
  with fs.open_input_stream(path) as opened:
    try:
      found = require_fields(file, json.loads(opened.read()), {})
    except (ValueError, RecursionError) as error:
      raise InputError(f"{file} is damaged ({error}); encode again into another folder.") from error
  version = found.pop("version", None)
  require(
    version == VERSION,
    f"{output} is of version {version!r}, this program reads {VERSION}; use the version of udh_jax "
    "that wrote it.",
  )
  kinds = {"num_bits": whole(1, 1 << 20), "encoder": OBJECT, "parts": LIST}
  require_fields(file, found, dict.fromkeys(Plan._fields, ANYTHING) | kinds)
  require(found.keys() <= set(Plan._fields), f"{file} has fields that are not known.")
  require_fields(f"{file}: encoder", found["encoder"], {"source": TEXT, "digest": TEXT})
  for part in found["parts"]:
    require(
      isinstance(part, list)
      and len(part) in (3, 4)
      and all(isinstance(place, str) for place in (part[0], *part[3:]))
      and all(type(row) is int and row >= 0 for row in part[1:3]),
      f"{file} is damaged: {str(part)[:80]} is no part; encode again into another folder.",
    )
  return Plan(**found | {"parts": [Part(*part) for part in found["parts"]]})


def pictures_of(plan: Plan, part: Part) -> Iterator[tuple[str, Callable[[int], np.ndarray]]]:
  """The pictures of a part, each under a name of its own.

  A row with bytes is a picture of its own; rows without are one picture where name and path are
  equal. A row without a name is called by its file and row (``train.parquet/3``), and so is each
  of several pictures of one name (``train.parquet/3/image.png``).

  Yields:
    A name, and a function that reads its picture: of a size, to uint8 ``[size, size, 3]``, or
    `ValueError` that says why it cannot be read.
  """
  file = part.key or file_system_of(part.file)[1].rpartition("/")[2]
  shared = _shared_names(part)
  seen: set[tuple[str | None, str | None]] = set()
  for row, (name, path, data) in enumerate(_rows_of(part), part.start):
    if data is None and name is not None:
      if (name, path) in seen:
        continue
      seen.add((name, path))
    if name is None or name in shared:
      name = f"{file}/{row}" if name is None else f"{file}/{row}/{name}"
    if data is not None:
      yield name, functools.partial(decode_picture, data)
    else:
      yield name, functools.partial(_read, plan.root, path)


def _rows_of(
  part: Part, columns: Collection[str] = _COLUMNS
) -> Iterator[tuple[str | None, str | None, bytes | None]]:
  """Name (or else path), path and bytes of each row, None for what it or ``columns`` lacks."""
  for batch in _listed(part, columns):
    nothing = [None] * batch.num_rows
    found = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    for row in zip(*(found.get(name, nothing) for name in _COLUMNS), strict=True):
      name, path, data = row
      yield name or path or None, path, data


def _shared_names(part: Part) -> set[str]:
  """Names that several pictures of a part have: of rows with bytes, or with different paths."""
  with open_parquet(part.file, part.key) as file:
    columns = set(_columns_of(file.schema_arrow, joined(part.file, part.key)).values())
  if len(columns) == 1:  # no names, or the paths, of which each is one picture
    return set()
  names = ((name, path) for name, path, _ in _rows_of(part, ("name", "path")))
  counts = collections.Counter(name for name, _ in (names if "bytes" in columns else set(names)))
  return {name for name, count in counts.items() if count > 1 and name is not None}


def _read(root: str, path: str | None, size: int) -> np.ndarray:
  if path is None:
    raise ValueError("the listing has neither its path nor its bytes")
  whole_path = "://" in path or path.startswith("/")
  fs, place = file_system_of(path) if whole_path else file_system_of(root, path)
  if fs.type_name == "local":
    return read_picture(place, size)
  for attempt in range(_TRIES):
    try:
      with fs.open_input_stream(place) as file:
        data = file.read()
      return decode_picture(data, size)
    except (FileNotFoundError, IsADirectoryError) as error:
      raise ValueError("it is not there") from error
    except OSError as error:
      if attempt == _TRIES - 1:
        raise ValueError(f"{UNREACHABLE}{error}") from error
      time.sleep(0.5 * 2**attempt)
  raise AssertionError


def _listed(part: Part, wanted: Collection[str]) -> Iterator[Any]:
  """Rows of a part in record batches, with those of the wanted columns that it has."""
  pa = require_extra("pyarrow", extra=EXTRA)
  with open_parquet(part.file, part.key) as file:
    groups: list[int] = []
    first = row = 0
    for number in range(file.num_row_groups):
      rows = file.metadata.row_group(number).num_rows
      if row < part.stop and row + rows > part.start:
        first = row if not groups else first
        groups.append(number)
      row += rows
    row = first
    columns = _columns_of(file.schema_arrow, joined(part.file, part.key))
    columns = {old: new for old, new in columns.items() if new in wanted}
    for batch in file.iter_batches(batch_size=256, row_groups=groups, columns=list(columns)):
      begin, end = (min(max(at - row, 0), batch.num_rows) for at in (part.start, part.stop))
      chosen = batch.slice(begin, end - begin)
      row += batch.num_rows
      flat = pa.Table.from_batches([chosen]).flatten().combine_chunks()
      kept = {new: flat.column(old) for old, new in columns.items()}
      yield from pa.table(kept).to_batches()


def _columns_of(schema: Any, file: str) -> dict[str, str]:
  """Columns of a listing to read (``image.bytes`` for a struct's), and what they are."""
  found = {name: name for name in _COLUMNS if name in schema.names}
  if "image" in schema.names and not {"path", "bytes"} & found.keys():
    image = schema.field("image").type
    inner = [image.field(i).name for i in range(image.num_fields)]
    found |= {f"image.{name}": name for name in ("path", "bytes") if name in inner}
  values = set(found.values())
  require(
    values & {"path", "bytes"},
    f"{file} has the columns {', '.join(schema.names)}; a listing has path, or name and bytes.",
  )
  return found


def _cut(file: str, key: str, part_size: int) -> Iterator[Part]:
  """Parts of a Parquet file; where it holds the pictures themselves, whole row groups."""
  with open_parquet(file, key) as opened:
    metadata = opened.metadata
    columns = _columns_of(opened.schema_arrow, joined(file, key))
  rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
  if "bytes" not in columns.values():
    for start in range(0, sum(rows), part_size):
      yield Part(file, start, min(start + part_size, sum(rows)), key)
    return
  start = stop = 0
  for number in rows:
    if stop > start and stop + number - start > part_size:
      yield Part(file, start, stop, key)
      start = stop
    stop += number
  if stop > start:
    yield Part(file, start, stop, key)


_Files = list[tuple[str, str]]  # a path or URL and, where it is a folder, a name in it


def _own_listing(images: str, output: str, root: str | None) -> tuple[_Files, str, str]:
  """Writes Parquet files of the paths of a folder or text file; their names, fingerprint, root."""
  pa = require_extra("pyarrow", extra=EXTRA)
  fs, path = file_system_of(images)
  kind = kind_of(images)
  require(
    kind in ("File", "Directory"),
    f"{images} is not there; give a folder of pictures, or a listing (.txt or .parquet).",
  )
  _require_listing(images, root, is_listing=kind == "File")
  fingerprint, bad = "", []
  if kind == "Directory":
    root, names = images, _pictures_in(images)
  else:
    require(
      path.endswith(".txt"),
      f"{images} is neither a folder nor a listing; a listing ends in .txt (a path a line) or "
      ".parquet.",
    )
    fingerprint = _fingerprint([(images, "")])
    root, names = _folder_of(images) if root is None else root, _lines_of(fs, path)
  files: _Files = []
  while chunk := list(itertools.islice(names, _LISTED_AT_ONCE)):
    held = [name for name in chunk if _is_utf8(name)]
    bad += [ascii(name)[1:-1] for name in chunk if not _is_utf8(name)]
    files.append((output, f"listing/{len(files):05d}.parquet"))
    write_table(*files[-1], pa.table({"path": pa.array(held, pa.string())}))
  if bad:
    reason = "its name holds bytes that are not UTF-8; rename it"
    table = pa.table({"name": bad, "reason": [reason] * len(bad)})
    write_table(output, f"unreadable/{LEFT_OUT}", table)
  elif LEFT_OUT in files_in(output, "unreadable"):  # of a call that was stopped before its plan
    delete_file(output, f"unreadable/{LEFT_OUT}")
  return files, fingerprint, root


def _pictures_in(folder: str) -> Iterator[str]:
  fs, path = file_system_of(folder)
  if fs.type_name == "local":
    others: collections.Counter[str] = collections.Counter()
    names = list_pictures(pathlib.Path(path), others)
    if others:
      print(passed_over(others), flush=True)
    return iter(names)
  start = len(path.rstrip("/")) + 1
  names = [
    info.path[start:]
    for info in infos_in(folder, recursive=True)
    if info.type.name == "File" and info.path.lower().endswith(picture_endings())
  ]
  return iter(sorted(name for name in names if not re.search(r"(^|/)\.", name)))


def _lines_of(fs: Any, path: str) -> Iterator[str]:
  with fs.open_input_file(path) as file:
    for number, line in enumerate(io.BufferedReader(file)):
      text = line.rstrip(b"\r\n")
      if text := text if number else text.removeprefix(codecs.BOM_UTF8):
        yield text.decode("utf-8", "surrogateescape")


def _is_utf8(name: str) -> bool:
  try:
    name.encode()
  except UnicodeEncodeError:
    return False
  return True


def _parquet_files(images: str) -> _Files:
  """The Parquet files that ``images`` is or holds; none where it is another listing or a folder."""
  kind = kind_of(images)
  _, path = file_system_of(images)
  if path.endswith(".parquet") and kind == "File":
    return [(images, "")]
  names = files_in(images) if kind == "Directory" else []
  names = [name for name in names if name.endswith(".parquet") and name[0] not in "._"]
  for name in names:
    require(_is_utf8(name), f"{images}: the name {name!a} is not UTF-8; rename the file.")
  return [(images, name) for name in names]


def _fingerprint(files: Iterable[tuple[str, str]]) -> str:
  digest = hashlib.sha256()
  for file in files:
    fs, path = file_system_of(*file)
    digest.update(f"{joined(*file)}\0{fs.get_file_info(path).size}\0".encode())
  return digest.hexdigest()


def _folder_of(url: str) -> str:
  """The folder that relative paths of a listing are relative to."""
  return url if kind_of(url) == "Directory" else folder_of(url)
