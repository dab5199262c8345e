"""What the files of an official layout say of its pictures, before any picture is opened."""

import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from udh_jax.data.pictures import open_pictures
from udh_jax.data.readers.files import file_options
from udh_jax.data.types import Progress, Source
from udh_jax.errors import InputError, require


class Listing(NamedTuple):
  """Pictures by name, and what is known of each; row i is the same one in every field.

  Attributes:
    folder: Where the pictures are.
    files: Path of each, relative to ``folder``, n strings.
    labels: None, or multi-hot bool array of shape ``[n, L]``.
    class_names: Name of each class, empty without labels.
    texts: None, or which tags each has. Bool array of shape ``[n, t]``.
    words: The tags, t strings, or empty where their names are not known.
    settings: The options that decided what is listed, by name.
  """

  folder: pathlib.Path
  files: Sequence[str]
  labels: np.ndarray | None
  class_names: Sequence[str]
  texts: np.ndarray | None = None
  words: Sequence[str] = ()
  settings: dict[str, Any] = {}  # noqa: RUF012 (nothing writes to it)

  def take(self, rows: np.ndarray) -> "Listing":
    """Some of the pictures; the very same arrays if it is all of them.

    Args:
      rows: Which ones, sorted. Integer array of shape ``[m]``.

    Returns:
      The listing of those.
    """
    if len(rows) == len(self.files):
      return self
    return self._replace(
      files=[self.files[row] for row in rows],
      labels=None if self.labels is None else self.labels[rows],
      texts=None if self.texts is None else self.texts[rows],
    )


def select_pairs(
  listing: Listing, problems: dict[str, np.ndarray], on_unpaired: str, *, strays: str = ""
) -> Listing:
  """Decides on pictures to which something is missing that a pair needs.

  Args:
    listing: The pictures.
    problems: What can be missing, in words, and which pictures lack it. Bool arrays of shape
      ``[n]``.
    on_unpaired: "keep" them all, "skip" those (with one warning that counts them) or "refuse".
    strays: Files that belong to no picture, in words with their number, or "".

  Returns:
    The pictures that stay.

  Raises:
    InputError: If something is missing and ``on_unpaired`` is "refuse", or if nothing stays.
  """
  counts = [f"{lack.sum()} {words}" for words, lack in problems.items() if lack.any()]
  counted = ", ".join(counts + [strays] * bool(strays))
  if on_unpaired == "keep" or not counted:
    return listing
  total = len(listing.files)
  if on_unpaired == "refuse":
    raise InputError(
      f"Of {total} pictures, {counted}; complete the files, or set on_unpaired to "
      '"skip" to leave such pictures out, or to "keep".'
    )
  rows = np.flatnonzero(~np.any(list(problems.values()), axis=0))
  logging.getLogger(__name__).warning(
    "%d of %d pictures are left out: %s", total - len(rows), total, counts
  )
  require(len(rows) > 0, f'Of {total} pictures none is left: {counts}; set on_unpaired to "keep".')
  return listing.take(rows)


def open_listing(
  listing: Listing, *, image_size: int, on_unreadable: str, progress: Progress
) -> Source:
  """Checks the pictures and gives access to those that can be read.

  Args:
    listing: The pictures.
    image_size: Side of the square that each picture becomes.
    on_unreadable: "skip" or "refuse".
    progress: Called with (files done, files in all) while files are checked.

  Returns:
    The source, in the order of the listing.

  Raises:
    InputError: If a picture cannot be read and ``on_unreadable`` is "refuse", or if none can be.
  """
  pictures = open_pictures(
    listing.folder,
    listing.files,
    size=image_size,
    on_unreadable=on_unreadable,
    progress=progress,
  )
  kept = listing.take(pictures.kept)
  return Source(
    images=pictures.images,
    image_shape=(image_size, image_size, 3),
    names=pictures.names,
    labels=kept.labels,
    class_names=kept.class_names,
    texts=kept.texts,
    words=kept.words,
  )


def read_pairs(
  name: str,
  config: Any,
  progress: Progress,
  list_files: Callable[..., Listing],
  settings: dict[str, Any],
) -> Source:
  """Pairs that TFDS prepared, where ``config.path`` holds such, or else the official files.

  Args:
    name: Name of the set in TFDS, with its configuration.
    config: ``path`` and the fields of `udh_jax.data.readers.files`.
    progress: Called with (items done, items in all).
    list_files: From the path and ``settings`` to the listing of the official files.
    settings: The options that decide what is listed.
  """
  from udh_jax.data.readers.tfds import is_prepared, read_tfds_pairs

  if is_prepared(name, config.path):
    return read_tfds_pairs(
      name, config.path, image_size=config.image_size, settings=settings, progress=progress
    )
  return open_listing(
    list_files(config.path, **settings), **file_options(config), progress=progress
  )
