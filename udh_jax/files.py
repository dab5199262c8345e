"""Files that are whole or absent."""

import contextlib
import json
import os
import pathlib
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from typing import IO, Any

from udh_jax.errors import InputError, require


def write_atomically(path: str | os.PathLike, write: Callable[[IO[bytes]], object]) -> None:
  """Lets ``write`` fill a temporary file beside ``path`` and then puts it in its place.

  Where ``path`` is a symbolic link, the file that it names is replaced. Who may read and write the
  new file is as it was for the old one. A process that is killed leaves the temporary file; the
  next one that writes to ``path`` removes it.
  """
  path = followed(path)
  temporary, file = _open_temporary(path)
  try:
    with file:
      write(file)
      file.flush()
      os.fsync(file.fileno())
      if os.name == "nt":  # which renames no open file
        file.close()
      os.replace(temporary, path)
  except BaseException as error:
    temporary.unlink(missing_ok=True)
    if isinstance(error, OSError) and error.errno and error.filename is None:
      error.filename = os.fspath(path)  # as of a full disk, which is told of a file by its number
    raise
  _remove_abandoned(path)


def followed(path: str | os.PathLike) -> pathlib.Path:
  """The file that a symbolic link names at its end, there or not; any other path as it is."""
  return pathlib.Path(os.path.realpath(path) if os.path.islink(path) else path)


def keep_mode(old: str | os.PathLike, new: str | os.PathLike) -> None:
  """Lets those use ``new`` who may use ``old``, which it is to replace; nothing if it is absent.

  Args:
    old: File to be replaced.
    new: File to take its place.
  """
  with contextlib.suppress(OSError):  # absent, or the file system keeps no modes
    mode = stat.S_IMODE(os.stat(old).st_mode) & 0o777
    if os.name != "nt" and mode != stat.S_IMODE(os.stat(new).st_mode):
      os.chmod(new, mode)


def _prefix(path: pathlib.Path) -> str:
  return f".{path.name[:32]}."  # a long name leaves no room for more


def _open_temporary(path: pathlib.Path) -> tuple[pathlib.Path, IO[bytes]]:
  """A new file beside ``path``, with its mode, locked while it is open."""
  flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
  try:
    mode = path.stat().st_mode & 0o666
  except OSError:
    mode = 0o666  # the umask says who may read it
  while True:
    temporary = path.with_name(f"{_prefix(path)}{secrets.token_hex(8)}.tmp")
    file = os.fdopen(os.open(temporary, flags, mode), "wb")
    keep_mode(path, temporary)
    try:
      _lock(file)
      if os.fstat(file.fileno()).st_nlink:
        return temporary, file
    except BlockingIOError:
      pass
    except OSError:  # the file system has no locks
      return temporary, file
    file.close()  # another process took it for an abandoned one


def _remove_abandoned(path: pathlib.Path) -> None:
  """Removes temporary files for ``path`` whose writers are gone: their locks went with them."""
  own = re.compile(re.escape(_prefix(path)) + r"[0-9a-f]{16}\.tmp")
  with contextlib.suppress(OSError):
    for other in path.parent.iterdir():
      if own.fullmatch(other.name):
        with contextlib.suppress(OSError), other.open("rb") as file:
          _lock(file)
          other.unlink()


@contextlib.contextmanager
def held(folder: str | os.PathLike) -> Iterator[None]:
  """Keeps a folder from all others that ask for it so, until the work in it is done.

  Nothing is kept where the file system, or the system, locks no folders.

  Args:
    folder: Has to be there.

  Raises:
    InputError: If another program has it.
  """
  with contextlib.ExitStack() as stack:
    with contextlib.suppress(OSError):
      descriptor = os.open(folder, os.O_RDONLY)
      stack.callback(os.close, descriptor)
      try:
        _lock(descriptor)
      except BlockingIOError:
        raise InputError(
          f"Another program is at work in {os.fspath(folder)}; wait until it has ended, or name "
          "another folder."
        ) from None
    yield


def _lock(file: IO[bytes] | int) -> None:
  """Locks an open file for this process; `OSError` if that cannot be."""
  try:
    import fcntl
  except ImportError:
    raise OSError("this system has no locks") from None
  fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def require_writable(path: str | os.PathLike) -> None:
  """Proves that a file can be written, before the work whose result it is to hold.

  Raises:
    InputError: If it is a folder or a device, its folder is not there, or cannot be written to.
  """
  path = followed(path)
  try:
    mode = path.stat().st_mode if path.exists() else None
    require(mode is None or not stat.S_ISDIR(mode), f"{path} is a folder; name a file in it.")
    require(mode is None or stat.S_ISREG(mode), f"{path} is not a regular file; name another.")
    require(
      path.parent.is_dir(),
      f"The folder {path.parent} does not exist; create it, or name another.",
    )
    temporary, file = _open_temporary(path)
    file.close()
    temporary.unlink()
  except OSError as error:
    raise InputError(f"{path} cannot be written ({error.strerror}); name another file.") from error


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes UTF-8 text, whole or not at all."""
  write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes ``value`` as indented JSON, whole or not at all."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
  """Reads what `write_json` wrote.

  Raises:
    InputError: If the file cannot be read or is not JSON.
  """
  try:
    return json.loads(pathlib.Path(path).read_text("utf-8"))
  except OSError as error:
    raise InputError(f"{os.fspath(path)} cannot be read ({error.strerror}).") from error
  except (ValueError, RecursionError) as error:
    raise InputError(
      f"{os.fspath(path)} is damaged: it is not JSON ({error}); fetch it or make it again."
    ) from error
