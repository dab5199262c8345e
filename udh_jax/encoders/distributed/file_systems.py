"""Files of this machine and of object stores, by path or URL."""

import contextlib
import functools
import os
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
  except OSError as error:
    raise InputError(f"{base} cannot be reached ({_words(error)}).") from error


# Options at the end of a URL, such as ?region=x&scheme=http; else a question mark is of the key.
_OPTIONS = re.compile(r"\?[A-Za-z_]\w*=[^?]*\Z")
_WITHOUT_OPTIONS = ("file", "http", "https")
_URL = re.compile(r"([a-z][a-z0-9+.-]+)://([^/?]*)(.*)", re.DOTALL)


def file_system_of(url: str, key: str = "") -> tuple[Any, str]:
  """The file system of a path or URL, and the path in it.

  Args:
    url: A path of this machine, or ``s3://bucket/key``, ``gs://bucket/key``, ``abfss://…`` or what
      else pyarrow or fsspec has a file system for. Options of the file system may stand at the end
      (``?region=...``).
    key: What is meant below it, relative to it: a name of any characters, in which nothing is an
      option. "" for the place itself.

  Returns:
    A ``pyarrow.fs.FileSystem`` and a path.

  Raises:
    InputError: If there is none for it.
  """
  fs = require_extra("pyarrow.fs", extra=EXTRA)
  base, options = _split(url)
  match = _URL.fullmatch(base)
  if match is None:
    found, path = fs.LocalFileSystem(), str(pathlib.Path(base).absolute())
  else:
    # Keys may hold characters that have a meaning in URLs, so they are not read as such.
    scheme, host, path = match.groups()
    if scheme == "file":
      found = fs.LocalFileSystem()
    else:
      found, top = _file_system(f"{scheme}://{host}{options}")
      path = top.rstrip("/") + path if host else path
  return found, f"{path.rstrip('/')}/{key}" if key else path


def _split(url: str) -> tuple[str, str]:
  """A path or URL without its options, and the options with their question mark."""
  match = _URL.fullmatch(url)
  options = _OPTIONS.search(url) if match and match[1] not in _WITHOUT_OPTIONS else None
  return (url[: options.start()], options[0]) if options else (url, "")


def folder_of(url: str) -> str:
  """The folder that a file is in, with the same options."""
  base, options = _split(url)
  return (base.rpartition("/")[0] or ("/" if base.startswith("/") else ".")) + options


def files_in(folder: str, key: str = "") -> list[str]:
  """Names of the files in a folder, sorted; none where there is no such folder.

  Args:
    folder: A path or URL.
    key: The folder meant, relative to it.

  Returns:
    Names. On this machine one that is not UTF-8 has its bytes as Python's file names have them.

  Raises:
    InputError: If it cannot be listed.
  """
  fs, path = file_system_of(folder, key)
  if fs.type_name == "local":
    try:
      with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if entry.is_file())
    except FileNotFoundError:
      return []
    except OSError as error:
      raise _not_listed(joined(folder, key), error) from error
  infos = infos_in(folder, key)
  return sorted(info.base_name for info in infos if info.type.name == "File")


def infos_in(folder: str, key: str = "", *, recursive: bool = False) -> list[Any]:
  """What pyarrow says of all that is in a folder; nothing where there is no such folder.

  Args:
    folder: A path or URL.
    key: The folder meant, relative to it.
    recursive: Of the folders in it too.

  Returns:
    A ``pyarrow.fs.FileInfo`` of each.

  Raises:
    InputError: If it cannot be listed, or a name is not UTF-8.
  """
  fs, path = file_system_of(folder, key)
  selector = require_extra("pyarrow.fs", extra=EXTRA).FileSelector(
    path, allow_not_found=True, recursive=recursive
  )
  try:
    infos = fs.get_file_info(selector)
    for info in infos:
      _ = info.path  # is decoded when it is asked for
  except (OSError, UnicodeError) as error:
    raise _not_listed(joined(folder, key), error) from error
  return infos


def _not_listed(folder: str, error: OSError | UnicodeError) -> InputError:
  if isinstance(error, UnicodeError):
    return InputError(f"{folder} cannot be listed: a name in it is not UTF-8; rename it.")
  return InputError(f"{folder} cannot be listed ({_words(error)}).")


def kind_of(url: str, key: str = "") -> str:
  """ "File", "Directory" or "NotFound".

  Args:
    url: A path or URL.
    key: What is meant below it.

  Raises:
    InputError: If it is not UTF-8, or cannot be looked at.
  """
  fs, path = file_system_of(url, key)
  try:
    return fs.get_file_info(path).type.name
  except UnicodeError as error:
    raise InputError(f"{joined(url, key)!a} is not UTF-8; rename it.") from error
  except OSError as error:
    raise InputError(f"{joined(url, key)} cannot be reached ({_words(error)}).") from error


def joined(root: str, key: str) -> str:
  """A place and what is below it in one text, to be shown or compared; not to be parsed again."""
  base, options = _split(root)
  return f"{base.rstrip('/')}/{key}{options}" if key else root


@contextlib.contextmanager
def open_parquet(file: str, key: str = "") -> Iterator[Any]:
  """Opens a Parquet file as a ``pyarrow.parquet.ParquetFile``.

  Args:
    file: A path or URL.
    key: The file meant, relative to it.

  Raises:
    InputError: If it cannot be opened or, while it is read, is found damaged.
  """
  fs, path = file_system_of(file, key)
  try:
    with fs.open_input_file(path) as opened:
      yield require_extra("pyarrow.parquet", extra=EXTRA).ParquetFile(opened)
  except InputError:
    raise
  except (OSError, ValueError) as error:
    raise InputError(
      f"{joined(file, key)} cannot be read ({_words(error)}); if it is damaged, remove it and "
      "encode again."
    ) from error


def write_table(folder: str, key: str, table: Any) -> None:
  """Writes a table as a Parquet file, whole or not at all."""
  pa = require_extra("pyarrow", extra=EXTRA)
  sink = pa.BufferOutputStream()
  require_extra("pyarrow.parquet", extra=EXTRA).write_table(table, sink, compression="zstd")
  write_file(folder, key, sink.getvalue())


# A file of theirs is there once it is closed, and whole.
_OBJECT_STORES = ("s3", "gcs", "abfs")


def write_file(folder: str, key: str, data: Any) -> None:
  """Writes a file, whole or not at all.

  Args:
    folder: A path or URL.
    key: The file, relative to it; folders are made where they are missing.
    data: Bytes.

  Raises:
    InputError: If it cannot be written.
  """
  fs, path = file_system_of(folder, key)
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
      f"{joined(folder, key)} cannot be written ({_words(error)}); give another folder, or make "
      "room."
    ) from error


def delete_file(folder: str, key: str) -> None:
  """Removes a file."""
  fs, path = file_system_of(folder, key)
  fs.delete_file(path)


def _words(error: BaseException) -> str:
  return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
