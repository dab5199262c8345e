"""Neighbours of a picture or a text: python -m udh_jax.search --index FILE --image PICTURE [-k 10].

The index is one that ``python -m udh_jax.encode`` wrote; it names the encoder that made it. With
``--text "beach sunset"`` in place of ``--image`` pictures are found by words, where the encoder was
trained on pairs of images and texts.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence

import numpy as np

from udh_jax.commands.encode import require_pictures
from udh_jax.commands.ending import guarded
from udh_jax.data.pictures import decode_picture
from udh_jax.encoder import Encoder, load_encoder
from udh_jax.errors import InputError, require
from udh_jax.pair_encoder import PairEncoder
from udh_jax.retrieval.index import HammingIndex, Hits


def encoder_of(index: HammingIndex, source: str | None = None) -> Encoder | PairEncoder:
  """The encoder that made an index.

  Args:
    index: From `udh_jax.encode`.
    source: Where the encoder is now; by default where it was then.

  Raises:
    InputError: If it is not there, or is another.
  """
  made = index.about.get("encoder")
  require(made is not None, "The index does not say which encoder made it; search it by code.")
  source = source or made["source"]
  require(source, "The index does not say where its encoder is; give it with --encoder.")
  encoder = load_encoder(source)
  require(
    encoder.digest == made["digest"],
    f"The encoder {source} is not the one that made the index, so their codes do not agree; give "
    "the right one with --encoder, or encode the pictures again.",
  )
  return encoder


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
    image = decode_picture(pathlib.Path(picture).read_bytes(), encoder.about["picture_size"])
  except (OSError, ValueError) as error:
    raise InputError(f"{picture} cannot be read ({error}); give a picture file.") from error
  return _nearest(index, encoder(image[None]), k, radius)


def words_of(text: str) -> list[str]:
  """Words apart by commas, if there is one; else by blanks."""
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
    text: Words of the encoder's vocabulary, apart by blanks; or by commas, if there is one.
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


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  parser = argparse.ArgumentParser("python -m udh_jax.search", description=__doc__)
  parser.add_argument("--index", required=True, help="written by python -m udh_jax.encode")
  query = parser.add_mutually_exclusive_group(required=True)
  query.add_argument("--image", help="the picture to look for")
  query.add_argument("--text", help="words to look for, apart by blanks or commas")
  parser.add_argument("-k", type=int, help="how many neighbours (10; all with --radius)")
  parser.add_argument("--radius", type=int, help="only neighbours within this Hamming distance")
  parser.add_argument("--encoder", help="where the encoder is now, if it was moved")
  parser.add_argument("--images", help="where the pictures are now, for --gallery")
  parser.add_argument("--json", action="store_true", help="print JSON")
  parser.add_argument("--gallery", help="PNG to draw the picture and its neighbours to")
  options = parser.parse_args(arguments)

  def run():
    index = HammingIndex.load(options.index)
    require(len(index), f"The index {options.index} is empty.")
    encoder = encoder_of(index, options.encoder)
    k = options.k
    if options.radius is None:
      k = min(10, len(index)) if k is None else k
    by_text = options.image is None
    asked = options.text if by_text else options.image
    search_by = search_text if by_text else search_picture
    hits = search_by(index, encoder, asked, k=k, radius=options.radius)
    found = [
      {"name": index.names[i], "distance": int(d)}
      for d, i in zip(hits.distances, hits.indices, strict=True)
    ]
    if options.gallery:
      _draw(index, options, asked, found)
    if options.json:
      query = {"text" if by_text else "image": asked}
      print(json.dumps(query | {"bits": index.num_bits, "neighbours": found}))
      return
    for item in found:
      print(f"{item['distance']:4d}  {item['name']}")
    if not found:
      print(f"nothing within radius {options.radius}")

  guarded(run)


def _draw(index, options, asked, found) -> None:
  from udh_jax.report.plots import picture_row

  folder = pathlib.Path(options.images or index.about.get("folder", "."))
  cells = [(folder / item["name"], f"d = {item['distance']}") for item in found[:24]]
  pictures = []
  if options.image is None:
    pictures.append((words_of(asked), "query"))
  else:
    cells.insert(0, (pathlib.Path(options.image), "query"))
  for path, text in cells:
    try:
      pictures.append((decode_picture(path.read_bytes(), 160), text))
    except (OSError, ValueError):
      pictures.append((np.full((160, 160, 3), 230, np.uint8), f"{text}\n(not found)"))
  picture_row(options.gallery, pictures, title=f"{asked}: nearest by {index.num_bits} bits")
