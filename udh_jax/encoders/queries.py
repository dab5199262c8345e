"""The neighbours of a picture or of words, in an index."""

import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from udh_jax.coding.binary import pack_codes, sign
from udh_jax.data.pictures import read_picture
from udh_jax.encoders.folder import require_pictures
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.encoders.reading import encode_batch, read_ahead
from udh_jax.errors import InputError, require
from udh_jax.machine import num_cores
from udh_jax.retrieval.asymmetric import most_similar_first
from udh_jax.retrieval.index import HammingIndex, Hits, Searchable

ASYMMETRIC_READS_ALL = (
  "An asymmetric search reads all codes, which an index has at hand and a store has not; make an "
  "index of the store with udh-jax copy."
)


def search_picture(
  index: Searchable,
  encoder: Encoder | PairEncoder,
  picture: str | pathlib.Path,
  *,
  k: int | None = 10,
  radius: int | None = None,
  asymmetric: bool = False,
) -> Hits:
  """The items nearest, or most similar, to a picture file, ties by index.

  Args:
    index: To search in.
    encoder: That made it.
    picture: A file in a common format.
    k: How many, at most; None for all within the radius.
    radius: Only items within this distance.
    asymmetric: As of `search_pictures`.

  Raises:
    InputError: If the picture cannot be read, the encoder takes none, or an option is out of range.
  """
  require_pictures(encoder)
  find = _search_of(index, asymmetric)
  read = encoder.outputs if asymmetric else encoder
  try:
    image = read_picture(picture, encoder.about["picture_size"])
  except ValueError as error:
    raise InputError(f"{picture} cannot be read ({error}); give a picture file.") from error
  return find(read(image[None]), k, radius)[0]


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
  asymmetric: bool = False,
  batch_size: int = 64,
) -> Iterator[Answer]:
  """The items nearest, or most similar, to each of several picture files, ties by index.

  Files are read ahead in threads, and encoded and searched some at a time.

  Args:
    index: To search in.
    encoder: That made it.
    pictures: Files in common formats.
    k: How many for each, at most; None for all within the radius.
    radius: Only items within this distance.
    asymmetric: Most similar first by the encoder's real-valued outputs, see
      `udh_jax.retrieval.asymmetric_search`, in place of nearest first; of a `HammingIndex` alone.
    batch_size: Pictures encoded at once.

  Yields:
    An `Answer` for each picture, in their order.

  Raises:
    InputError: If the encoder takes no pictures, or an option is out of range.
  """
  require_pictures(encoder)
  require(batch_size >= 1, f"The batch size is {batch_size}; give 1 or more.")
  find = _search_of(index, asymmetric)
  read = encoder.outputs if asymmetric else encoder
  size = encoder.about["picture_size"]

  items = ((os.fspath(picture), functools.partial(read_picture, picture)) for picture in pictures)
  fill = min(batch_size, len(pictures))  # one shape, compiled once
  for batch in read_ahead(items, size, batch_size, num_cores()):
    images = [image for _, image in batch if not isinstance(image, str)]
    hits: Iterator[Hits] = iter(())
    if images:
      hits = iter(find(encode_batch(read, images, fill), k, radius))
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
  asymmetric: bool = False,
) -> Hits:
  """The items nearest, or most similar, to a text, ties by index.

  Args:
    index: To search in.
    encoder: That made it.
    text: Words of the encoder's vocabulary, see `PairEncoder.words_of`.
    k: How many, at most; None for all within the radius.
    radius: Only items within this distance.
    asymmetric: As of `search_pictures`.

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
  find = _search_of(index, asymmetric)
  read = encoder.text_outputs if asymmetric else encoder.texts
  return find(read([words]), k, radius)[0]


def _search_of(
  index: Searchable, asymmetric: bool
) -> Callable[[np.ndarray, int | None, int | None], list[Hits]]:
  """What finds the neighbours of packed codes or, where ``asymmetric``, of outputs, in an index."""
  if not asymmetric:
    return functools.partial(_nearest, index)
  if not isinstance(index, HammingIndex):
    raise InputError(ASYMMETRIC_READS_ALL)

  def find(outputs, k, radius):
    return most_similar(index, np.asarray(pack_codes(sign(outputs))), outputs, k, radius)

  return find


def _as_many(index: Searchable, k: int | None) -> int:
  """How many neighbours to ask of an index, which has perhaps fewer items; a store gives those."""
  if k is None:
    raise InputError("Neither k nor a radius is given; give one of them, or both.")
  return min(k, len(index)) if isinstance(index, HammingIndex) else k


def _require_some(k: int | None) -> None:
  require(k is None or k >= 1, f"k is {k}, expected 1 or more.")


def most_similar(
  index: HammingIndex,
  codes: np.ndarray,
  outputs: np.ndarray,
  k: int | None = None,
  radius: int | None = None,
) -> list[Hits]:
  """Neighbours in the order of `udh_jax.retrieval.asymmetric_search`, with Hamming distances.

  Args:
    index: To search.
    codes: Of the queries, packed: distances are to them. uint8 array of shape ``[q, bytes]``.
    outputs: The encoder's, for the queries, before binarisation. Float array of shape
      ``[q, num_bits]``.
    k: How many, at most.
    radius: Only items within this Hamming distance of the code.

  Returns:
    For each query its `Hits`, most similar first.

  Raises:
    InputError: If neither k nor a radius is given, or a shape or dtype is wrong.
  """
  _require_some(k)
  if radius is None or (k is not None and radius >= index.num_bits):
    rows = list(index.asymmetric_search(outputs, _as_many(index, k)).indices)
  else:
    rows = []
    for code, own in zip(codes, outputs, strict=True):  # all that is near one query is held
      (hits,) = index.radius_search(code[None], radius)
      near = np.sort(hits.indices)
      rows.append(near[most_similar_first(own, index.codes[near], k)])
  apart = [
    np.unpackbits(index.codes[r] ^ c, axis=1).sum(axis=1) for r, c in zip(rows, codes, strict=True)
  ]
  return [
    Hits(distances.astype(np.int32), some.astype(np.int64))
    for distances, some in zip(apart, rows, strict=True)
  ]


def _nearest(index: Searchable, codes: np.ndarray, k: int | None, radius: int | None) -> list[Hits]:
  _require_some(k)
  if radius is None:
    return [Hits(*found) for found in zip(*index.search(codes, _as_many(index, k)), strict=True)]
  found = index.radius_search(codes, radius)
  return [Hits(hits.distances[:k], hits.indices[:k]) for hits in found]
