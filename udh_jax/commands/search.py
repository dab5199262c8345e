"""Neighbours of a picture or a text: udh-jax search --index FILE --image PICTURE [-k 10].

The index is one that ``udh-jax encode`` wrote; it names the encoder that made it. With ``--text
"beach sunset"`` in place of ``--image`` pictures are found by words, where the encoder was trained
on pairs of images and texts.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np

from udh_jax.commands.ending import guarded
from udh_jax.data.pictures import read_picture
from udh_jax.encoders.loading import encoder_of
from udh_jax.encoders.queries import search_picture, search_text, words_of
from udh_jax.errors import require
from udh_jax.files import require_writable
from udh_jax.printable import printable
from udh_jax.retrieval.index import HammingIndex


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  parser = argparse.ArgumentParser("udh-jax search", description=__doc__)
  parser.add_argument("--index", required=True, help="written by udh-jax encode")
  query = parser.add_mutually_exclusive_group(required=True)
  query.add_argument("--image", help="the picture to look for")
  query.add_argument("--text", help="words to look for, separated by blanks or commas")
  parser.add_argument("-k", type=int, help="how many neighbours (10; all with --radius)")
  parser.add_argument("--radius", type=int, help="only neighbours within this Hamming distance")
  parser.add_argument("--encoder", help="where the encoder is now, if it was moved")
  parser.add_argument("--images", help="where the pictures are now, for --gallery")
  parser.add_argument("--json", action="store_true", help="print JSON")
  parser.add_argument("--gallery", help="PNG to draw the picture and its neighbours to")
  options = parser.parse_args(arguments)

  def run():
    for path in (options.index, options.image):
      require(
        not (options.gallery and path and _same_file(options.gallery, path)),
        f"--gallery {options.gallery} would be written over {path}; name another file.",
      )
    if options.gallery:
      require_writable(options.gallery)
    index = HammingIndex.load(options.index)
    require(len(index), f"The index {options.index} is empty.")
    encoder = encoder_of(index, options.encoder)
    k = 10 if options.k is None and options.radius is None else options.k
    if k is not None:
      k = min(k, len(index))
    by_text = options.image is None
    asked = options.text if by_text else options.image
    search_by = search_text if by_text else search_picture
    hits = search_by(index, encoder, asked, k=k, radius=options.radius)
    found = [
      {"name": index.names[i], "distance": int(d)}
      for d, i in zip(hits.distances, hits.indices, strict=True)
    ]
    if options.json:
      query = {"text" if by_text else "image": asked}
      print(json.dumps(query | {"bits": index.num_bits, "neighbours": found}), flush=True)
    else:
      for item in found:
        print(f"{item['distance']:4d}  {printable(item['name'])}")
      if not found:
        print(f"nothing within radius {options.radius}")
      sys.stdout.flush()
    if options.gallery:
      _draw(index, options, asked, found)

  guarded(run)


def _same_file(a: str, b: str) -> bool:
  return os.path.realpath(a) == os.path.realpath(b)


def _draw(index, options, asked, found) -> None:
  from udh_jax.report.plots import picture_row

  folder = pathlib.Path(options.images or index.about.get("folder", "."))
  cells = [(folder / item["name"], f"d = {item['distance']}") for item in found[:24]]
  pictures: list[tuple[np.ndarray | Sequence[str], str]] = []
  if options.image is None:
    pictures.append((words_of(asked), "query"))
  else:
    cells.insert(0, (pathlib.Path(options.image), "query"))
  for path, text in cells:
    try:
      pictures.append((read_picture(path, 160), text))
    except ValueError:
      pictures.append((np.full((160, 160, 3), 230, np.uint8), f"{text}\n(not found)"))
  picture_row(options.gallery, pictures, title=f"{asked}: nearest by {index.num_bits} bits")
