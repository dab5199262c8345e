"""What is served now, and how a new state of the index file takes its place."""

import asyncio
import logging
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from udh_jax.encoders.loading import encoder_of
from udh_jax.errors import InputError
from udh_jax.retrieval.index import HammingIndex
from udh_jax.service.collection import Collection, IndexCollection
from udh_jax.service.encoding import Coder

_log = logging.getLogger(__name__)


class Served(NamedTuple):
  """A collection with the encoder that made its codes.

  Attributes:
    collection: What is searched.
    coder: None where nothing is known of the encoder: items and codes can be asked for alone.
    loaded: When, in seconds since 1970.
  """

  collection: Collection
  coder: Coder | None
  loaded: float


class IndexFile:
  """An index file, and how it is opened.

  Attributes:
    path: Of the file.
  """

  def __init__(
    self,
    path: str | os.PathLike,
    *,
    encoder: str | None = None,
    folder: str | os.PathLike | None = None,
    batch_sizes: Sequence[int] = (1, 4, 16),
  ):
    """Names a file; `load` opens it.

    Args:
      path: Of the file.
      encoder: Where the encoder is; by default where the index says.
      folder: Of the pictures; by default the one that the index says.
      batch_sizes: How many queries are encoded and searched at once.
    """
    self.path = pathlib.Path(path)
    self._encoder, self._batch_sizes = encoder, batch_sizes
    self._folder = None if folder is None else pathlib.Path(folder)

  def state(self) -> str | None:
    """Tells the file as it is now from every other state of it; None if it is not there."""
    try:
      status = self.path.stat()
    except OSError:
      return None
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return "-".join(f"{part:x}" for part in parts)

  def load(self, previous: Served | None = None) -> Served:
    """Opens the file and its encoder, and compiles what queries need.

    Args:
      previous: Its encoder is used again where it made these codes, too.

    Raises:
      InputError: If the file is no index, is damaged, or its encoder is not there or another.
    """
    version = self.state()  # before it is read: what is written meanwhile is noticed afterwards
    index = HammingIndex.load(self.path)
    folder = self._folder or index.about.get("folder")
    collection = IndexCollection(
      index,
      title=self.path.name,
      version=version or "",
      folder=None if folder is None else pathlib.Path(folder),
      batch_sizes=self._batch_sizes,
    )
    coder = previous.coder if previous is not None else None
    if coder is None or coder.digest != collection.digest:
      coder = None
      if collection.digest is not None or self._encoder is not None:
        coder = Coder(encoder_of(index, self._encoder), batch_sizes=self._batch_sizes)
        coder.prepare()
    collection.prepare()
    return Served(collection, coder, time.time())


class Following:
  """Serves the newest sound state of an index file.

  Attributes:
    now: What is served; replaced as a whole.
    problem: Why the newest state of the file is not served; None if it is.
  """

  def __init__(self, file: IndexFile, now: Served, *, every: float = 1.0):
    """Begins with what was loaded.

    Args:
      file: To look at.
      now: Loaded from it.
      every: Seconds between two looks.
    """
    self._file, self._every = file, every
    self._tried = now.collection.version
    self.now = now
    self.problem: str | None = None

  async def run(self, on_load: Callable[[bool], None] = lambda taken: None) -> None:
    """Looks at the file again and again, and takes up what is new; never ends by itself.

    Args:
      on_load: Called after each try with whether it was taken up.
    """
    while True:
      await asyncio.sleep(self._every)
      await self.look(on_load)

  async def look(self, on_load: Callable[[bool], None] = lambda taken: None) -> None:
    """Looks once."""
    state = self._file.state()
    if state == self._tried:
      return
    self._tried = state
    if state is None:
      self._keep(f"The index {self._file.path} is gone.")
      return
    try:
      new = await asyncio.to_thread(self._file.load, self.now)
    except InputError as error:
      self._keep(" ".join(str(error).split()))
    except Exception as error:  # whatever it is, the old one still serves
      _log.exception("the index %s cannot be loaded", self._file.path)
      self._keep(f"The index {self._file.path} cannot be loaded ({type(error).__name__}: {error}).")
    else:
      self.now, self.problem = new, None
      self._tried = new.collection.version
      _log.warning("serves the new %s: %d items", self._file.path, new.collection.count())
    on_load(self.problem is None)

  def _keep(self, problem: str) -> None:
    self.problem = problem
    _log.error("%s The version loaded before is still served.", problem)
