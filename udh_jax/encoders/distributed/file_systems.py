"""Files of this machine and of object stores, by path or URL."""

import contextlib
import functools
import pathlib
import re
from collections.abc import Iterator
from typing import Any

from udh_jax.errors import InputError
from udh_jax.extras import require_extra
from udh_jax.files import write_atomically

EXTRA = "ray"


@functools.lru_cache(maxsize=64)
def _file_system(base: str) -> tuple[Any, str]:
  fs = require_extra("pyarrow.fs", extra=EXTRA)
  try:
    return fs.FileSystem.from_uri(base)
  except (ValueError, NotImplementedError):
    try:  # one that fsspec knows
      found, path = require_extra("fsspec", extra=EXTRA).core.url_to_fs(base)
    except (ValueError, ImportError) as error:
      raise InputError(f"{base} is of a kind that cannot be read here ({error}).") from None
    return fs.PyFileSystem(fs.FSSpecHandler(found)), path


def file_system_of(url: str) -> tuple[Any, str]:
  """The file system of a path or URL, and the path in it.

  Args:
    url: A path of this machine, or ``s3://bucket/key``, ``gs://bucket/key``, ``abfss://…`` or what
      else pyarrow or fsspec has a file system for. Options of the file system may stand at the end
      (``?region=...``).

  Returns:
    A ``pyarrow.fs.FileSystem`` and a path.

  Raises:
    InputError: If there is none for it.
  """
  fs = require_extra("pyarrow.fs", extra=EXTRA)
  match = re.fullmatch(r"([a-z][a-z0-9+.-]+)://([^/?]*)([^?]*)(\?.*)?", url, re.DOTALL)
  if match is None:
    return fs.LocalFileSystem(), str(pathlib.Path(url).absolute())
  # Keys may hold characters that have a meaning in URLs, so they are not read as such.
  scheme, host, path, options = match.groups(default="")
  if scheme == "file":
    return fs.LocalFileSystem(), path
  found, base = _file_system(f"{scheme}://{host}{options}")
  return found, base.rstrip("/") + path if host else path


def files_in(folder: str) -> list[str]:
  """Names of the files in a folder, sorted; none where there is no such folder."""
  fs, path = file_system_of(folder)
  selector = require_extra("pyarrow.fs", extra=EXTRA).FileSelector(path, allow_not_found=True)
  try:
    found = fs.get_file_info(selector)
  except OSError as error:
    raise InputError(f"{folder} cannot be listed ({_words(error)}).") from error
  return sorted(info.base_name for info in found if info.type.name == "File")


def kind_of(url: str) -> str:
  """ "File", "Directory" or "NotFound"."""
  fs, path = file_system_of(url)
  return fs.get_file_info(path).type.name


def joined(root: str, path: str) -> str:
  """A path that may be relative to ``root``, which may be a URL with options."""
  if "://" in path or path.startswith("/"):
    return path
  base, mark, options = root.partition("?") if "://" in root else (root, "", "")
  return f"{base.rstrip('/')}/{path}{mark}{options}"


@contextlib.contextmanager
def open_parquet(file: str) -> Iterator[Any]:
  """Opens a Parquet file as a ``pyarrow.parquet.ParquetFile``.

  Raises:
    InputError: If it cannot be opened or, while it is read, is found damaged.
  """
  fs, path = file_system_of(file)
  try:
    with fs.open_input_file(path) as opened:
      yield require_extra("pyarrow.parquet", extra=EXTRA).ParquetFile(opened)
  except InputError:
    raise
  except (OSError, ValueError) as error:
    raise InputError(
      f"{file} cannot be read ({_words(error)}); if it is damaged, remove it and encode again."
    ) from error


def write_table(file: str, table: Any) -> None:
  """Writes a table as a Parquet file, whole or not at all."""
  pa = require_extra("pyarrow", extra=EXTRA)
  sink = pa.BufferOutputStream()
  require_extra("pyarrow.parquet", extra=EXTRA).write_table(table, sink, compression="zstd")
  write_file(file, sink.getvalue())


# A file of theirs is there once it is closed, and whole.
_OBJECT_STORES = ("s3", "gcs", "abfs")


def write_file(file: str, data: Any) -> None:
  """Writes a file, whole or not at all."""
  fs, path = file_system_of(file)
  try:
    if fs.type_name == "local":
      pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
      write_atomically(path, lambda opened: opened.write(data))
      return
    fs.create_dir(path.rpartition("/")[0], recursive=True)
    partial = path if fs.type_name in _OBJECT_STORES else f"{path}.partial"
    with fs.open_output_stream(partial) as opened:
      opened.write(data)
    if partial != path:
      fs.move(partial, path)
  except OSError as error:
    raise InputError(
      f"{file} cannot be written ({_words(error)}); give another folder, or make room."
    ) from error


def _words(error: BaseException) -> str:
  return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
