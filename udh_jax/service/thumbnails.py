"""Small copies of the pictures of a collection, made once and kept in a folder of bounded size."""

import asyncio
import concurrent.futures
import contextlib
import hashlib
import io
import logging
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from udh_jax.data.pictures import decode_picture, picture_size, reason_of
from udh_jax.files import write_atomically
from udh_jax.service.files import Opened, gone

SIDE = 256  # pixels
KIND = "image/webp"
_VERSION = 1  # of how they are made; part of their names
_LOSSLESS = 64  # sides up to this; there is little to save, and much to see of it
_SUFFIX = ".webp"

_log = logging.getLogger(__name__)


class Thumbnail(NamedTuple):
  """A small copy.

  Attributes:
    data: A WebP file.
    tag: Of this state of the picture, for caches.
    made: Whether it was made now, not found.
  """

  data: bytes
  tag: str
  made: bool


def make_thumbnail(data: bytes) -> bytes:
  """The square that the encoder sees of a picture: a WebP of at most `SIDE` pixels, not enlarged.

  Raises:
    ValueError: If it is not a picture, is cut short or damaged.
  """
  from PIL import Image

  try:
    side = min(SIDE, *picture_size(data))
  except Exception as error:  # Pillow raises many types on damaged files
    raise ValueError(reason_of(error)) from error
  small = io.BytesIO()
  square = Image.fromarray(decode_picture(data, side))
  square.save(small, "WEBP", lossless=side <= _LOSSLESS, quality=82, method=2)
  return small.getvalue()


class Cache:
  """Files in a folder, the least used of which go when they hold too many bytes.

  Several processes may share the folder. Where it cannot be written to, nothing is kept, and one
  line of the log says so.
  """

  def __init__(self, folder: pathlib.Path, max_bytes: int):
    self._folder, self._max_bytes = folder, max_bytes
    self._lock = threading.Lock()
    self._warned = False
    self._put = 0  # bytes since the folder was looked at
    self.bytes = sum(size for _, size, _ in self._files())

  def _files(self) -> list[tuple[float, int, pathlib.Path]]:
    found = []
    for path in self._folder.glob(f"??/*{_SUFFIX}"):
      with contextlib.suppress(OSError):
        status = path.stat()
        found.append((status.st_mtime, status.st_size, path))
    return found

  def _path(self, key):
    return self._folder / key[:2] / f"{key[2:]}{_SUFFIX}"

  def get(self, key: str) -> bytes | None:
    """What was kept under a key, or None."""
    path = self._path(key)
    try:
      data = path.read_bytes()
    except OSError:
      return None
    with contextlib.suppress(OSError):
      os.utime(path)  # used now
    return data

  def put(self, key: str, data: bytes) -> None:
    """Keeps something under a key, as far as that is possible."""
    path = self._path(key)
    with self._lock:
      try:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # it may be nobody else's
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, lambda file: file.write(data))
      except OSError as error:
        if not self._warned:
          _log.warning("thumbnails cannot be kept in %s (%s)", self._folder, error.strerror)
          self._warned = True
        return
      self.bytes += len(data)
      self._put += len(data)
      # Others put files there, too: of up to twenty each has put this much at most unseen.
      if self.bytes > self._max_bytes or self._put > self._max_bytes / 20:
        self._shrink()

  def _shrink(self) -> None:
    """Looks at the folder; removes the least used files, if they are too many, to free a tenth."""
    files = sorted(self._files())
    self.bytes, self._put = sum(size for _, size, _ in files), 0
    if self.bytes <= self._max_bytes:
      return
    for _, size, path in files:
      if self.bytes <= 0.9 * self._max_bytes:
        return
      with contextlib.suppress(OSError):
        path.unlink()
      self.bytes -= size


class Thumbnails:
  """Makes thumbnails in threads of their own, each once however many ask for it."""

  def __init__(self, cache: Cache, *, threads: int):
    self._cache = cache
    self._threads = concurrent.futures.ThreadPoolExecutor(threads)
    self._making: dict[str, asyncio.Task] = {}

  @property
  def kept_bytes(self) -> int:
    """What the cache holds."""
    return self._cache.bytes

  async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function that waits for a disk, in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

  async def get(self, place: str, opened: Opened) -> Thumbnail:
    """The thumbnail of an opened picture.

    Args:
      place: Tells the picture from every other: its folder and name.
      opened: Closed afterwards.

    Raises:
      Problem: If it is not a picture that can be decoded.
    """
    text = "\0".join([place, opened.tag, str(SIDE), str(_VERSION)])
    key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    task = self._making.get(key)
    if task is None:
      task = asyncio.ensure_future(self.call(self._make, key, opened))
      self._making[key] = task
      task.add_done_callback(lambda _: self._making.pop(key, None))
    else:
      opened.file.close()
    data, made = await asyncio.shield(task)
    return Thumbnail(data, f'"{key[:32]}"', made)

  def _make(self, key, opened) -> tuple[bytes, bool]:
    with opened.file:
      kept = self._cache.get(key)
      if kept is not None:
        return kept, False
      try:
        data = make_thumbnail(opened.file.read())
      except (OSError, ValueError) as error:
        raise gone(f"The picture cannot be decoded ({error}).") from None
      self._cache.put(key, data)
      return data, True

  def stop(self) -> None:
    """Ends the threads."""
    self._threads.shutdown(cancel_futures=True)
