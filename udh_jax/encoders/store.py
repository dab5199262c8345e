"""A folder of pictures in, their codes in a store, which is then kept in step with it."""

import collections
import functools
import os
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from udh_jax.data.pictures import (
  NO_PICTURES,
  OutOfReachError,
  is_gone,
  list_pictures,
  passed_over,
  read_picture,
)
from udh_jax.encoders.folder import SHOW_EVERY, is_noted, require_pictures
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.loading import absolute
from udh_jax.encoders.pair import PairEncoder
from udh_jax.encoders.reading import encode_batch, read_ahead
from udh_jax.errors import require
from udh_jax.machine import num_cores
from udh_jax.stores.interface import (
  FILE_COLUMNS,
  Rows,
  Store,
  StoreError,
  name_problem,
  require_same_encoder,
)

_ASKED_AT_ONCE = 5000  # names compared with the store's
_AT_ONCE = 1024  # pictures of a transaction, at most; fewer where encoding takes longer
_LONGEST = 10.0  # seconds between two transactions


class Stored(NamedTuple):
  """What a call has done.

  Attributes:
    listed: Pictures in the folder.
    encoded: Of them, those that were new or had changed.
    removed: Items whose files had gone, or are no pictures any more.
    unreadable: What is wrong with the files that are not in the store, by name.
  """

  listed: int
  encoded: int
  removed: int
  unreadable: dict[str, str]


def encode_folder_to_store(
  encoder: Encoder | PairEncoder,
  folder: str | os.PathLike,
  store: Store,
  *,
  source: str = "",
  batch_size: int = 64,
  remove: bool = False,
) -> Stored:
  """Encodes the new and changed pictures of a folder into a store.

  A file whose size and time of change are those in the store is not read. What is encoded is
  written in transactions of up to 1,024 pictures, at least one every ten seconds; stopped anywhere
  and called again, it goes on.

  The store notes where the encoder and the folder are: another folder is noted in place of the old
  one where half or more of the store's items are in it by name.

  Args:
    encoder: That of the store.
    folder: Nested as it may be; names are paths relative to it, with forward slashes.
    store: With the columns `FILE_COLUMNS`.
    source: Where the encoder came from; noted in the store, for ``udh-jax search``.
    batch_size: Pictures encoded at once.
    remove: Remove items that are not in the folder. For a store of this folder alone.

  Raises:
    InputError: If the folder is missing or has no pictures, the store is of another encoder or
      lacks the columns; or with ``remove``, if the folder is not the one that the store names and
      has fewer than half of its items.
    StoreError: If the store fails; what was written before stays.
  """
  require_pictures(encoder)
  require_same_encoder(store, encoder.digest)
  require(batch_size >= 1, f"The batch size is {batch_size}; give 1 or more.")
  require(
    FILE_COLUMNS.items() <= store.columns.items(),
    f"{store.location} lacks the columns {', '.join(FILE_COLUMNS)}, by which changed files are "
    "known; make it with udh-jax encode --store.",
  )
  folder = pathlib.Path(folder)
  require(folder.is_dir(), f"{folder} is not a folder; give the folder of the pictures.")
  others: collections.Counter[str] = collections.Counter()
  files = list_pictures(folder, others)
  require(files, f"{folder} {NO_PICTURES} {passed_over(others)}".rstrip())
  if others:
    print(passed_over(others), flush=True)
  _note(store, folder, files, source, remove)
  bad: dict[str, str] = {}
  states: dict[str, tuple[int, int]] = {}
  away: set[str] = set()  # may be sound pictures all the same: their items stay
  size = encoder.about["picture_size"]
  items = (
    (name, functools.partial(_read, folder, name, away))
    for name in _new_or_changed(folder, files, store, states, bad, away)
  )
  names: list[str] = []
  codes: list[np.ndarray] = []
  encoded, started = 0, time.monotonic()
  written = shown = started

  def write() -> None:
    if names:
      noted = [states.pop(name) for name in names]
      metadata = {column: [s[i] for s in noted] for i, column in enumerate(FILE_COLUMNS)}
      store.load([Rows(names.copy(), np.concatenate(codes), metadata)])
      names.clear()
      codes.clear()

  for batch in read_ahead(items, size, batch_size, num_cores()):
    wrong = {name: picture for name, picture in batch if isinstance(picture, str)}
    bad |= wrong
    good = [(name, picture) for name, picture in batch if not isinstance(picture, str)]
    if good:
      codes.append(encode_batch(encoder, [picture for _, picture in good], batch_size))
      names += [name for name, _ in good]
      encoded += len(good)
    now = time.monotonic()
    if len(names) >= _AT_ONCE or now - written >= _LONGEST:
      write()
      written = now
    if now - shown >= SHOW_EVERY:
      rate = encoded / (now - started)
      print(f"{encoded:,} new pictures encoded  {rate:.0f}/s", flush=True)
      shown = now
  write()
  removed = store.delete([name for name in bad if name not in away and name_problem(name) is None])
  if remove:
    kept = set(files)
    gone = [name for part in store.names() for name in part if name not in kept]
    removed += store.delete(gone)
  return Stored(len(files), encoded, removed, bad)


def _note(
  store: Store, folder: pathlib.Path, files: Sequence[str], source: str, remove: bool
) -> None:
  """Notes where the encoder and the pictures are now; refuses to empty a store of other ones."""
  about = dict(store.about)
  if source:
    about["encoder"] = {**about["encoder"], "source": absolute(source)}
  noted = about.get("folder")
  if not is_noted(folder, noted):
    listed, found, items = set(files), 0, 0
    for part in store.names():
      items += len(part)
      found += sum(name in listed for name in part)
    is_its_own = 2 * found >= items
    require(
      is_its_own or not remove,
      f"{folder} has {found:,} of the {items:,} pictures in {store.location}, which is of {noted}; "
      "give that folder or another --table, or leave out --update, which alone removes items.",
    )
    if is_its_own:
      about["folder"] = str(folder.resolve())
  if about != store.about:
    try:
      store.describe(about)
    except StoreError as error:  # such as of who may write items alone
      print(f"where encoder and pictures are now is not noted: {error}", flush=True)


def _new_or_changed(
  folder: pathlib.Path,
  files: Sequence[str],
  store: Store,
  states: dict[str, tuple[int, int]],
  bad: dict[str, str],
  away: set[str],
) -> Iterator[str]:
  """Names that the store lacks or has of another state; fills in states, and what cannot be."""
  for start in range(0, len(files), _ASKED_AT_ONCE):
    found: dict[str, tuple[int, int]] = {}
    for name in files[start : start + _ASKED_AT_ONCE]:
      problem = name_problem(name)
      try:
        state = (folder / name).stat()
        found[name] = (state.st_size, state.st_mtime_ns)
      except OSError as error:
        problem = problem or error.strerror
        if not is_gone(folder / name, error):
          away.add(name)
      if problem is not None:
        found.pop(name, None)
        bad[name] = f"cannot be stored: {problem}"
    rows = store.get(list(found))
    known = dict(
      zip(rows.names, zip(*(rows.metadata[c] for c in FILE_COLUMNS), strict=True), strict=True)
    )
    for name, now in found.items():
      if known.get(name) != now:
        states[name] = now
        yield name


def _read(folder: pathlib.Path, name: str, away: set[str], size: int) -> np.ndarray:
  try:
    return read_picture(folder / name, size)
  except OutOfReachError:
    away.add(name)
    raise
