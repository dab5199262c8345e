"""What is served now, and how a new state of the index file takes its place."""

import asyncio
import logging
import math
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

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
    state: Of the source when it was loaded.
  """

  collection: Collection
  coder: Coder | None
  loaded: float
  state: str | None


class Source(Protocol):
  """Where a collection comes from.

  Attributes:
    place: A file or a store, for messages.
  """

  place: str

  def state(self) -> str | None:
    """Tells what is there now from every other state of it; None if nothing is there."""
    ...

  def load(self, previous: Served | None = None) -> Served:
    """Opens it and its encoder, and compiles what queries need.

    Args:
      previous: Its encoder is used again where it made these codes, too.

    Raises:
      InputError: If it cannot be opened, or its encoder is not there or another.
    """
    ...


def _with_encoder(
  collection: Collection,
  described: HammingIndex,
  source: str | None,
  previous: Served | None,
  batch_sizes: Sequence[int],
) -> Served:
  """A collection with the encoder that ``described`` names, or that is at ``source``."""
  coder = None if previous is None else previous.coder
  if coder is None or coder.digest != collection.digest:
    coder = None
    if collection.digest is not None or source is not None:
      coder = Coder(encoder_of(described, source), batch_sizes=batch_sizes)
      coder.prepare()
  return Served(collection, coder, time.time(), collection.version)


class StoreTable:
  """A table of a store, which is asked anew by each query: there is nothing to take up."""

  def __init__(
    self,
    location: str,
    *,
    table: str = "codes",
    schema: str | None = None,
    approximate: bool = False,
    encoder: str | None = None,
    folder: str | os.PathLike | None = None,
    batch_sizes: Sequence[int] = (1, 4, 16),
  ):
    """Names a table; `load` opens it.

    Args:
      location: Of the store; see `udh_jax.stores.open_store`.
      table: Its name.
      schema: Where PostgreSQL has it.
      approximate: Search by its approximate index.
      encoder: Where the encoder is; by default where the store says.
      folder: Of the pictures; by default the one that the store says.
      batch_sizes: How many queries are encoded at once.
    """
    self.place, self._state = "the store", ""
    self._location, self._table, self._schema = location, table, schema
    self._approximate, self._encoder, self._batch_sizes = approximate, encoder, batch_sizes
    self._folder = None if folder is None else pathlib.Path(folder)

  def state(self) -> str | None:
    """Always the same."""
    return self._state

  def load(self, previous: Served | None = None) -> Served:
    """See `Source.load`."""
    from udh_jax.service.store_collection import StoreCollection
    from udh_jax.stores import open_store

    store = open_store(self._location, table=self._table, schema=self._schema)
    self.place = store.location
    folder = self._folder or store.about.get("folder") or None
    collection = StoreCollection(
      store,
      folder=None if folder is None else pathlib.Path(folder),
      approximate=self._approximate,
    )
    empty = np.zeros((0, -(-store.num_bits // 8)), np.uint8)
    self._state = collection.version
    described = HammingIndex(empty, [], num_bits=store.num_bits, about=store.about)
    return _with_encoder(collection, described, self._encoder, previous, self._batch_sizes)


class IndexFile:
  """An index file, and how it is opened."""

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
    self.place, self._path = os.fspath(path), pathlib.Path(path)
    self._encoder, self._batch_sizes = encoder, batch_sizes
    self._folder = None if folder is None else pathlib.Path(folder)

  def state(self) -> str | None:
    """Tells the file as it is now from every other state of it; None if it is not there."""
    try:
      status = self._path.stat()
    except OSError:
      return None
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return "-".join(f"{part:x}" for part in parts)

  def load(self, previous: Served | None = None) -> Served:
    """See `Source.load`; a damaged file is refused, wherever the damage is."""
    version = self.state()  # before it is read: what is written meanwhile is noticed afterwards
    index = HammingIndex.load(self._path)
    folder = self._folder or index.about.get("folder") or None
    collection = IndexCollection(
      index,
      title=self._path.name,
      version=version or "",
      folder=None if folder is None else pathlib.Path(folder),
      batch_sizes=self._batch_sizes,
    )
    served = _with_encoder(collection, index, self._encoder, previous, self._batch_sizes)
    collection.prepare()
    return served


class Following:
  """Serves the newest sound state of an index file.

  Attributes:
    now: What is served; replaced as a whole.
    problem: Why the newest state of the file is not served; None if it is.
  """

  def __init__(self, source: Source, now: Served, *, every: float = 1.0, again: float = 45.0):
    """Begins with what was loaded.

    Args:
      source: To look at.
      now: Loaded from it.
      every: Seconds between two looks.
      again: Seconds until a state that was refused is tried again: what it lacked, such as its
        encoder, may have come.
    """
    self._source, self._every, self._again = source, every, again
    self._next = math.inf  # when what was refused is tried again
    self._tried: str | None = now.state
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
    state = self._source.state()
    tried = state == self._tried
    if tried and (state is None or time.monotonic() < self._next):
      return
    self._tried, self._next = state, math.inf
    if state is None:
      self._keep(f"The index {self._source.place} is gone.")
      return
    before = self.problem if tried else None  # is not said twice
    try:
      new = await asyncio.to_thread(self._source.load, self.now)
    except InputError as error:
      self._keep(" ".join(str(error).split()), before)
    except Exception as error:  # whatever it is, the old one still serves
      self._keep(
        f"The index {self._source.place} cannot be loaded ({type(error).__name__}: {error}).",
        before,
        error,
      )
    else:
      self.now, self.problem = new, None
      self._tried = new.state
      _log.warning("serves the new %s: %d items", self._source.place, new.collection.count())
    if self.problem is not None:
      self._next = time.monotonic() + self._again
    on_load(self.problem is None)

  def _keep(self, problem: str, before: str | None = None, defect: Exception | None = None) -> None:
    self.problem = problem
    if problem != before:
      _log.error("%s The version loaded before is still served.", problem, exc_info=defect)
