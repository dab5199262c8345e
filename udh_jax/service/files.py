"""Picture files of a collection, opened so that no other file can be reached."""

import contextlib
import errno
import os
import pathlib
import re
import stat
from typing import IO, NamedTuple

from udh_jax.service.problems import Busy, Problem

# Kinds by how the files begin, whatever their names end in.
_KINDS = (
  (b"\xff\xd8\xff", "image/jpeg"),
  (b"\x89PNG\r\n\x1a\n", "image/png"),
  (b"GIF87a", "image/gif"),
  (b"GIF89a", "image/gif"),
  (b"BM", "image/bmp"),
  (b"II*\0", "image/tiff"),
  (b"MM\0*", "image/tiff"),
  (b"II+\0", "image/tiff"),
  (b"MM\0+", "image/tiff"),
  (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
  (b"\xff\x4f\xff\x51", "image/jp2"),
  (b"\0\0\1\0", "image/x-icon"),
)
_AVIF = (b"avif", b"avis", b"mif1", b"msf1")
# What browsers show; other pictures of a collection are sent to be kept.
SHOWN = ("image/jpeg", "image/png", "image/gif", "image/bmp", "image/webp", "image/avif")


class Opened(NamedTuple):
  """A picture file that was opened.

  Attributes:
    file: Open for reading, at its beginning.
    size: In bytes.
    changed: Time of its last change, in nanoseconds.
    kind: Its media type.
  """

  file: IO[bytes]
  size: int
  changed: int
  kind: str

  @property
  def tag(self) -> str:
    """Of this state of the file, for caches."""
    return f'"{self.changed:x}-{self.size:x}"'


# What passes: the same file may be read in a moment.
_PASSING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EAGAIN}


def gone(message: str) -> Problem:
  """A picture that the index knows and that is not to be had."""
  return Problem(message, status=404, code="picture_gone")


def _cannot_be_read(name: str, error: OSError) -> Problem:
  message = f"{name!r} cannot be read ({error.strerror})."
  return Busy(message) if error.errno in _PASSING else gone(message)


def open_picture(folder: pathlib.Path | None, name: str, *, follow_links: bool = False) -> Opened:
  """Opens a picture by its name in the index.

  That the index holds the name is for the caller to know. A name that leads out of the folder, one
  that is a link or lies behind one, and what is not a regular file or a picture are refused. Links
  are refused wherever they lead, as they may have been made after the pictures were encoded.

  Args:
    folder: Of the collection; None if it is not known.
    name: Relative to it, with forward slashes.
    follow_links: Open what links lead to, wherever it is.

  Raises:
    Problem: If it is not there, or refused.
  """
  if folder is None:
    raise gone("It is not known where the pictures are; start the server with --images.")
  parts = name.split("/")
  if not all(parts) or {".", ".."} & set(parts) or "\0" in name:
    raise gone(f"{name!r} is not a name within the folder of the pictures; it is not served.")
  if os.name == "nt" and any("\\" in part or ":" in part for part in parts):
    raise gone(f"{name!r} is not a name within the folder of the pictures; it is not served.")
  try:
    handle = _open_link(folder, parts) if follow_links else _open_plain(folder, parts)
  except (FileNotFoundError, NotADirectoryError):
    if not folder.is_dir():
      raise gone("The folder of the pictures is gone; their codes still answer.") from None
    if not follow_links and _has_link(folder, parts):
      raise _link(name) from None
    raise gone(f"{name!r} is no longer in the folder of the pictures.") from None
  except OSError as error:
    if not follow_links and _has_link(folder, parts):
      raise _link(name) from None
    raise _cannot_be_read(name, error) from None
  try:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
      raise gone(f"{name!r} is not a regular file; it is not served.")
    kind = kind_of(os.read(handle, 16))
    if kind is None:
      raise gone(f"{name!r} is not a picture any more, or of a kind that is not served.")
    os.lseek(handle, 0, os.SEEK_SET)
    return Opened(os.fdopen(handle, "rb"), status.st_size, status.st_mtime_ns, kind)
  except BaseException as error:
    os.close(handle)
    if isinstance(error, OSError):
      raise _cannot_be_read(name, error) from None
    raise


def kind_of(start: bytes) -> str | None:
  """Media type of a picture file by its first 16 bytes; None if it is of no known kind."""
  if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
    return "image/webp"
  if start[4:8] == b"ftyp" and start[8:12] in _AVIF:
    return "image/avif"
  if re.match(rb"P[1-6]\s", start):
    return "image/x-portable-anymap"
  return next((kind for magic, kind in _KINDS if start.startswith(magic)), None)


def _link(name):
  return gone(
    f"{name!r} is a link or lies behind one; links are not followed (--follow-links follows them)."
  )


_READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


def _open_plain(folder, parts) -> int:
  """Opens folder by folder, so that none of them can become a link on the way."""
  if os.open not in os.supports_dir_fd or not hasattr(os, "O_NOFOLLOW"):
    if _has_link(folder, parts):
      raise OSError(0, "it is a link")
    return os.open(folder.joinpath(*parts), _READ | _BINARY)
  at = os.open(folder, _READ | os.O_DIRECTORY)
  try:
    for part in parts[:-1]:
      below = os.open(part, _READ | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
      os.close(at)
      at = below
    return os.open(parts[-1], _READ | os.O_NOFOLLOW, dir_fd=at)
  finally:
    os.close(at)


def _open_link(folder, parts) -> int:
  return os.open(folder.joinpath(*parts), _READ | _BINARY)


def _has_link(folder, parts) -> bool:
  path = folder
  for part in parts:
    path = path / part
    with contextlib.suppress(OSError):
      if path.is_symlink():
        return True
  return False
