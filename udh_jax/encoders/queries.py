"""The neighbours of a picture or of words, in an index."""

import functools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from udh_jax.data.pictures import read_picture
from udh_jax.encoders.folder import require_pictures
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.encoders.reading import encode_batch, read_ahead
from udh_jax.errors import InputError, require
from udh_jax.machine import num_cores
from udh_jax.retrieval.index import Hits, Searchable


def search_picture(
  index: Searchable,
  encoder: Encoder | PairEncoder,
  picture: str | pathlib.Path,
  *,
  k: int | None = 10,
  radius: int | None = None,
) -> Hits:
  """The items nearest to a picture file, ties by index.

  Args:
    index: To search in.
    encoder: That made it.
    picture: A file in a common format.
    k: How many, at most; None for all within the radius.
    radius: Only items within this distance.

  Raises:
    InputError: If the picture cannot be read, the encoder takes none, or an option is out of range.
  """
  require_pictures(encoder)
  try:
    image = read_picture(picture, encoder.about["picture_size"])
  except ValueError as error:
    raise InputError(f"{picture} cannot be read ({error}); give a picture file.") from error
  return _nearest(index, encoder(image[None]), k, radius)


class Answer(NamedTuple):
  """What one picture of several found.

  Attributes:
    picture: The file.
    hits: Its neighbours; None if it cannot be read.
    problem: Why it cannot be read, or "".
  """

  picture: str
  hits: Hits | None
  problem: str = ""


def search_pictures(
  index: Searchable,
  encoder: Encoder | PairEncoder,
  pictures: Sequence[str | os.PathLike],
  *,
  k: int | None = 10,
  radius: int | None = None,
  batch_size: int = 64,
) -> Iterator[Answer]:
  """The items nearest to each of several picture files, ties by index.

  Files are read ahead in threads, and encoded and searched some at a time.

  Args:
    index: To search in.
    encoder: That made it.
    pictures: Files in common formats.
    k: How many for each, at most; None for all within the radius.
    radius: Only items within this distance.
    batch_size: Pictures encoded at once.

  Yields:
    An `Answer` for each picture, in their order.

  Raises:
    InputError: If the encoder takes no pictures, or an option is out of range.
  """
  require_pictures(encoder)
  size = encoder.about["picture_size"]

  items = ((os.fspath(picture), functools.partial(read_picture, picture)) for picture in pictures)
  fill = min(batch_size, len(pictures))  # one shape, compiled once
  for batch in read_ahead(items, size, batch_size, num_cores()):
    images = [image for _, image in batch if not isinstance(image, str)]
    hits: Iterator[Hits] = iter(())
    if images:
      codes = encode_batch(encoder, images, fill)
      hits = iter(_nearest_of_each(index, codes, k, radius))
    for picture, image in batch:
      if isinstance(image, str):
        yield Answer(picture, None, image)
      else:
        yield Answer(picture, next(hits), "")


def search_text(
  index: Searchable,
  encoder: Encoder | PairEncoder,
  text: str,
  *,
  k: int | None = 10,
  radius: int | None = None,
) -> Hits:
  """The items nearest to a text, ties by index.

  Args:
    index: To search in.
    encoder: That made it.
    text: Words of the encoder's vocabulary, see `PairEncoder.words_of`.
    k: How many, at most; None for all within the radius.
    radius: Only items within this distance.

  Raises:
    InputError: If the encoder takes no words or knows none of these, or an option is out of range.
  """
  if not isinstance(encoder, PairEncoder):
    raise InputError(
      "The encoder of this index takes pictures alone; to search by text, encode the pictures with "
      "one trained on pairs (configs/dudch.py)."
    )
  known, of = encoder.about["words"], "the texts that the encoder was trained on"
  require(known, f"There is no vocabulary of {of}; search by code.")
  words = encoder.words_of(text)
  require(
    not set(known).isdisjoint(words),
    f"No word of {text!r} is in the vocabulary of {of}: {len(known)} words, such as "
    f"{', '.join(known[:5])}.",
  )
  return _nearest(index, encoder.texts([words]), k, radius)


def _nearest(index: Searchable, code: np.ndarray, k: int | None, radius: int | None) -> Hits:
  return _nearest_of_each(index, code, k, radius)[0]


def _nearest_of_each(
  index: Searchable, codes: np.ndarray, k: int | None, radius: int | None
) -> list[Hits]:
  if radius is None:
    if k is None:
      raise InputError("Neither k nor a radius is given; give one of them, or both.")
    return [Hits(*found) for found in zip(*index.search(codes, k), strict=True)]
  require(k is None or k >= 1, f"k is {k}, expected 1 or more.")
  found = index.radius_search(codes, radius)
  return [Hits(hits.distances[:k], hits.indices[:k]) for hits in found]
