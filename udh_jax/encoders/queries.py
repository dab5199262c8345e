"""The neighbours of a picture or of words, in an index."""

import pathlib

from udh_jax.data.pictures import read_picture
from udh_jax.encoders.folder import require_pictures
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.errors import InputError, require
from udh_jax.retrieval.index import HammingIndex, Hits


def search_picture(
  index: HammingIndex,
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


def words_of(text: str) -> list[str]:
  """Comma-separated words, if there is a comma; else separated by blanks."""
  return [word.strip() for word in text.split(",")] if "," in text else text.split()


def search_text(
  index: HammingIndex,
  encoder: PairEncoder,
  text: str,
  *,
  k: int | None = 10,
  radius: int | None = None,
) -> Hits:
  """The items nearest to a text, ties by index.

  Args:
    index: To search in.
    encoder: That made it.
    text: Words of the encoder's vocabulary, separated by blanks; or by commas, if there is one.
    k: How many, at most; None for all within the radius.
    radius: Only items within this distance.

  Raises:
    InputError: If the encoder takes no words or knows none of these, or an option is out of range.
  """
  require(
    isinstance(encoder, PairEncoder),
    "The encoder of this index takes pictures alone; to search by text, encode the pictures with "
    "one trained on pairs (configs/dudch.py).",
  )
  words = words_of(text)
  known, of = encoder.about["words"], "the texts that the encoder was trained on"
  require(known, f"There is no vocabulary of {of}; search by code.")
  require(
    not set(known).isdisjoint(words),
    f"No word of {text!r} is in the vocabulary of {of}: {len(known)} words, such as "
    f"{', '.join(known[:5])}.",
  )
  return _nearest(index, encoder.texts([words]), k, radius)


def _nearest(index, code, k, radius) -> Hits:
  if radius is None:
    distances, indices = index.search(code, k)
    return Hits(distances[0], indices[0])
  require(k is None or k >= 1, f"k is {k}, expected 1 or more.")
  (hits,) = index.radius_search(code, radius)
  return Hits(hits.distances[:k], hits.indices[:k])
