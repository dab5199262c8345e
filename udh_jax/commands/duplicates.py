"""Finds near-duplicate pictures: udh-jax duplicates --index FILE [--page groups.html].

Finds groups of near-identical pictures in an index that ``udh-jax encode`` wrote: re-saved,
resized, mirrored, brightened, marked or cut at the borders. Each pair is verified on the pictures.
Colours are not compared. Of each group the best file comes first (most pixels, then most bytes).
Nothing is deleted.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Sequence

from udh_jax.commands.ending import give_text, guarded, require_apart
from udh_jax.duplicates.find import FAR, REACH, find_duplicates, summary
from udh_jax.duplicates.page import write_groups
from udh_jax.errors import require
from udh_jax.files import require_writable, write_text
from udh_jax.printable import printable
from udh_jax.retrieval.index import HammingIndex


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  parser = argparse.ArgumentParser("udh-jax duplicates", description=__doc__)
  parser.add_argument("--index", required=True, help="index written by udh-jax encode")
  parser.add_argument("--images", help="where the pictures are now, if they were moved")
  parser.add_argument("--json", metavar="FILE", help="file to write the groups to; - prints them")
  parser.add_argument("--csv", metavar="FILE", help="the same as a table; - prints it")
  parser.add_argument("--page", metavar="FILE", help="HTML page of the groups to write")
  parser.add_argument(
    "--reach",
    type=int,
    default=REACH,
    help=f"compare pictures whose signs differ in at most this many of 104 bits ({REACH})",
  )
  options = parser.parse_args(arguments)

  def run():
    require(
      not options.json == options.csv == "-", "--json and --csv cannot both print; name a file."
    )
    require(0 <= options.reach <= FAR, f"--reach is {options.reach}; give 0 to {FAR}.")
    require(options.page != "-", "--page is -, but a page is never printed; name a file.")
    outputs = {"--json": options.json, "--csv": options.csv, "--page": options.page}
    files = {flag: path for flag, path in outputs.items() if path and path != "-"}
    require_apart(files, [options.index])
    for path in files.values():
      require_writable(path)
    index = HammingIndex.load(options.index)
    folder = options.images or index.about.get("folder")
    require(folder, "The index does not say where its pictures are; give --images.")
    prints = "-" in (options.json, options.csv)

    def tell(text):
      print(printable(text), file=sys.stderr if prints else sys.stdout, flush=True)

    found = find_duplicates(index, folder, reach=options.reach, progress=tell)
    if options.json:
      _give(options.json, json.dumps(_record(options.index, folder, found), indent=2) + "\n")
    if options.csv:
      _give(options.csv, _table(found))
    if options.page:
      write_groups(options.page, found, folder, title=f"Duplicates in {options.index}")
    for name, reason in list(found.unreadable.items())[:5]:
      tell(f"{name} is left out: {reason}")
    if not prints:
      for group in found.groups[:20]:
        print(f"{len(group)} pictures")
        for copy in group:
          print(f"  {copy.width} x {copy.height}  {copy.size:>10,} bytes  {printable(copy.name)}")
      if len(found.groups) > 20:
        print(f"... and {len(found.groups) - 20:,} more groups")
    bad = f"; {len(found.unreadable):,} pictures cannot be read" if found.unreadable else ""
    tell(f"{summary(found)} {found.num_candidates:,} pairs were compared{bad}.")

  guarded(run, prints_result=True)


def _give(path, text) -> None:
  if path == "-":
    give_text(text)
  else:
    write_text(path, text)


def _record(index, folder, found) -> dict:
  return {
    "index": str(index),
    "folder": str(folder),
    "pictures": found.num_items,
    "groups": [
      {"best": group[0].name, "files": [copy._asdict() for copy in group]} for group in found.groups
    ],
    "unreadable": found.unreadable,
  }


def _table(found) -> str:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["group", "best", "name", "width", "height", "size"])
  for number, group in enumerate(found.groups, 1):
    for copy in group:
      writer.writerow([number, int(copy is group[0]), *copy])
  return text.getvalue()
