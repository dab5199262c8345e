"""Neighbours of pictures or a text: udh-jax search --index FILE --image PICTURE [-k 10].

The index is one that ``udh-jax encode`` wrote; it names the encoder that made it. With ``--text
"beach sunset"`` in place of ``--image`` pictures are found by words, where the encoder was trained
on pairs of images and texts. ``--image`` takes several files and folders; ``--output`` then writes
JSON lines or a table. ``--radius auto`` chooses the radius and says what share of unrelated
pictures (strangers) to expect within it. ``--asymmetric`` orders what is found by the encoder's
real-valued outputs for the query: better neighbours from the same index. ``--store`` in place of
``--index`` asks a database that ``udh-jax encode --store`` has filled; ``--where`` keeps the items
whose metadata match.
"""

import argparse
import csv
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from udh_jax.commands.ending import guarded, require_apart
from udh_jax.commands.store_flags import add_store_flags, opened_store, table_of
from udh_jax.data.pictures import NO_PICTURES, list_pictures, read_picture
from udh_jax.encoders.loading import encoder_of
from udh_jax.encoders.queries import search_picture, search_pictures, search_text
from udh_jax.errors import require
from udh_jax.extras import require_installed
from udh_jax.files import require_writable, write_atomically
from udh_jax.machine import keep_compiled
from udh_jax.printable import printable
from udh_jax.retrieval.index import HammingIndex, Hits, Searchable
from udh_jax.retrieval.strangers import radius_by_strangers
from udh_jax.stores import parse_where
from udh_jax.stores.as_index import StoreAsIndex


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  options = _parser().parse_args(arguments)
  guarded(lambda: _search(options), prints_result=True)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser("udh-jax search", description=__doc__)
  searched = parser.add_mutually_exclusive_group(required=True)
  searched.add_argument("--index", help="index written by udh-jax encode")
  add_store_flags(parser, searched)
  parser.add_argument(
    "--where", action="append", default=[], metavar="CONDITION",
    help="with --store: only items that match, such as label=cat or year>=2020; may be repeated",
  )  # fmt: skip
  parser.add_argument(
    "--approximate", action="store_true", help="with --store: search by its approximate index"
  )
  query = parser.add_mutually_exclusive_group(required=True)
  query.add_argument("--image", nargs="+", help="pictures to look for, or folders of them")
  query.add_argument(
    "--text",
    help="text to search by; for encoders trained on tags, tags separated by spaces or commas",
  )
  parser.add_argument("-k", type=int, help="how many neighbours (10; all with --radius)")
  parser.add_argument(
    "--radius", help="only neighbours within this Hamming distance, or auto: see --strangers"
  )
  parser.add_argument(
    "--strangers",
    type=float,
    help="with --radius auto: the share of what is found that may be near by chance (0.05)",
  )
  parser.add_argument(
    "--asymmetric", action="store_true",
    help="with --index: rank by the encoder's outputs for the query against the codes, which tells "
    "most items at equal distances apart; the distances shown are still Hamming's",
  )  # fmt: skip
  parser.add_argument("--encoder", help="where the encoder is now, if it was moved")
  parser.add_argument("--images", help="where the pictures are now, for --gallery")
  parser.add_argument("--json", action="store_true", help="print JSON, one line a picture")
  parser.add_argument("--output", help="file to write: a table if it ends in .csv, or JSON lines")
  parser.add_argument("--gallery", help="PNG to draw the picture and its neighbours to")
  return parser


def _search(options: argparse.Namespace) -> None:
  """Finds, then prints, writes and draws what was found."""
  files, several = _files(options.image or [])
  require(not (options.gallery and several), "--gallery draws one picture's neighbours; give one.")
  require(
    not (options.json and options.output),
    "--json prints what --output would write to a file; give one of the two.",
  )
  require(
    options.gallery or options.images is None,
    "--images is given without --gallery, which alone shows the pictures that were found.",
  )
  require_apart(
    {"--output": options.output, "--gallery": options.gallery},
    [*([options.index] if options.index else []), *files],
  )
  require(
    not options.gallery or options.gallery.lower().endswith(".png"),
    f"--gallery is {options.gallery}; it is drawn as PNG, name a file that ends in .png.",
  )
  if options.gallery:
    require_installed("matplotlib", extra="report")
  for written in (options.gallery, options.output):
    if written:
      require_writable(written)
  index, num_items, place = _searched(options)
  require(
    num_items,
    f"{place} has no item that matches --where {' '.join(options.where)}."
    if options.where
    else f"{place} has nothing to search in.",
  )
  keep_compiled()
  encoder = encoder_of(index, options.encoder)
  radius, about_radius = _radius(options, index)
  k = 10 if options.k is None and radius is None else options.k
  if k is not None:
    k = min(k, num_items)
  asked: dict[str, Any] = {"k": k, "radius": radius, "asymmetric": options.asymmetric}
  answers: Iterator[tuple[dict[str, str], Hits | None]]
  if options.text is not None:
    hits = search_text(index, encoder, options.text, **asked)
    answers = iter([({"text": options.text}, hits)])
  elif several:
    answers = _answers(search_pictures(index, encoder, files, **asked))
  else:
    hits = search_picture(index, encoder, files[0], **asked)
    answers = iter([({"image": files[0]}, hits)])
  records = _records(index, answers, about_radius)
  if options.output:
    _write(options.output, records)
  elif options.json:
    for record in records:
      print(json.dumps(record), flush=True)
  else:
    for record in records:
      _show(record, several, radius)
    sys.stdout.flush()
  if options.gallery:
    _draw(index, options, options.text or files[0], _found(index, hits))


def _searched(options) -> tuple[Searchable, int, str]:
  """The index, or the store in the manner of one; how many items are searched, and where."""
  if options.index:
    for name, given in (("where", options.where), ("approximate", options.approximate)):
      require(not given, f"--{name} is for a --store; an index is searched whole.")
    table_of(options)
    index = HammingIndex.load(options.index)
    return index, len(index), options.index
  require(
    not options.asymmetric,
    "--asymmetric reads all codes; make an index of the store with udh-jax copy.",
  )
  require(
    options.radius != "auto",
    "--radius auto reads all codes; make an index of the store with udh-jax copy.",
  )
  store = opened_store(options)
  where = parse_where(options.where, store.columns)
  searched = StoreAsIndex(store, where=where, approximate=options.approximate)
  return searched, len(searched), store.location


def _files(given) -> tuple[list[str], bool]:
  """The pictures that are asked for, and whether they are several, or one of a folder."""
  files = []
  for path in given:
    if os.path.isdir(path):
      inside = list_pictures(pathlib.Path(path))
      require(inside, f"{path} {NO_PICTURES}")
      files += [os.path.join(path, name) for name in inside]
    else:
      files.append(path)
  return files, len(files) > 1 or any(map(os.path.isdir, given))


def _radius(options, index) -> tuple[int | None, dict]:
  """The radius, and what answers say of it."""
  require(
    options.strangers is None or options.radius == "auto",
    "--strangers is given without --radius auto.",
  )
  if options.radius != "auto":
    wanted = options.radius
    valid = wanted is None or (wanted.isascii() and wanted.isdigit() and len(wanted) < 10)
    require(valid, f"--radius is {wanted}; give a whole number from 0 on, or auto.")
    return (None if wanted is None else int(wanted)), {}
  require(
    isinstance(index, HammingIndex),
    "--radius auto reads all codes, which an index has at hand and a store has not; give a number.",
  )
  share = 0.05 if options.strangers is None else options.strangers
  require(0 < share < 1, f"--strangers is {share}; give a share between 0 and 1.")
  found = radius_by_strangers(index, share=share)
  print(
    f"radius {found.radius} of {index.num_bits} bits: about {found.strangers:.1%} of what lies "
    "within it is expected to be near by chance; a picture of the index finds "
    f"{found.found:.1f} others there on average",
    file=sys.stderr,
    flush=True,
  )
  return found.radius, {"radius": found.radius, "expected_strangers": round(found.strangers, 6)}


def _answers(found) -> Iterator[tuple[dict, Hits | None]]:
  """Queries with their hits; pictures that cannot be read are counted at the end."""
  total = bad = 0
  for answer in found:
    total += 1
    bad += answer.hits is None
    problem = {"error": answer.problem} if answer.hits is None else {}
    yield {"image": answer.picture} | problem, answer.hits
  require(bad < total, f"None of the {total:,} pictures can be read.")
  if bad:
    print(f"{bad:,} of {total:,} pictures cannot be read", file=sys.stderr, flush=True)


def _found(index, hits) -> list[dict]:
  return [
    {"name": index.names[i], "distance": int(d)}
    for d, i in zip(hits.distances, hits.indices, strict=True)
  ]


def _records(index, answers, about_radius) -> Iterator[dict]:
  for query, hits in answers:
    found = [] if hits is None else _found(index, hits)
    yield query | {"bits": index.num_bits} | about_radius | {"neighbours": found}


def _show(record, several, radius) -> None:
  if several:
    print(printable(record["image"]))
  if "error" in record:
    print(f"  cannot be read: {printable(record['error'])}")
    return
  for item in record["neighbours"]:
    print(f"{item['distance']:4d}  {printable(item['name'])}")
  if not record["neighbours"]:
    print(f"nothing within radius {radius}")


def _write(path, records) -> None:
  """JSON lines or, by the file's ending, a table with a line for each neighbour."""

  def write_lines(file):
    for record in records:
      file.write(json.dumps(record).encode() + b"\n")

  def write_table(file):
    lines = csv.writer(_Encoded(file), lineterminator="\n")
    lines.writerow(["query", "rank", "distance", "name", "error"])
    for record in records:
      query = record.get("image", record.get("text"))
      if "error" in record:
        lines.writerow([query, "", "", "", record["error"]])
      for rank, item in enumerate(record["neighbours"], 1):
        lines.writerow([query, rank, item["distance"], item["name"], ""])

  write_atomically(path, write_table if path.lower().endswith(".csv") else write_lines)


class _Encoded:
  """A text file over a binary one; names that are not UTF-8 keep their bytes."""

  def __init__(self, file):
    self._file = file

  def write(self, text):
    self._file.write(text.encode("utf-8", "surrogateescape"))


def _draw(index, options, asked, found) -> None:
  from udh_jax.report.plots import picture_row

  folder = pathlib.Path(options.images or index.about.get("folder", "."))
  cells = [(folder / item["name"], f"d = {item['distance']}") for item in found[:24]]
  pictures: list[tuple[np.ndarray | Sequence[str], str]] = []
  if options.image is None:
    pictures.append((asked.replace(",", " ").split(), "query"))
  else:
    cells.insert(0, (pathlib.Path(asked), "query"))
  for path, text in cells:
    try:
      pictures.append((read_picture(path, 160), text))
    except ValueError:
      pictures.append((np.full((160, 160, 3), 230, np.uint8), f"{text}\n(not found)"))
  picture_row(options.gallery, pictures, title=f"{asked}: nearest by {index.num_bits} bits")
