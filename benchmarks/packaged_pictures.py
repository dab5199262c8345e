"""Five collections of drawings and cut-out photographs, from packages of Debian and npm.

  apt-get download openclipart-png tuxpaint-stamps-default wesnoth-1.16-data
  dpkg -x openclipart-png_*.deb clipart; dpkg -x tuxpaint-stamps-default_*.deb stamps
  dpkg -x wesnoth-1.16-data_*.deb terrain
  npm pack emoji-datasource-google@16.0.0; mkdir emoji
  tar xzf emoji-datasource-google-*.tgz -C emoji
  for kind in clipart stamps terrain emoji; do
    python benchmarks/packaged_pictures.py $kind ${kind}_folder; done
  python benchmarks/packaged_pictures.py terrain figures_folder --part units

Clip art in folders of two levels with 60 pictures and more (19 classes, 2,125 pictures), stamps in
those of one level with 20 and more (7 classes, 466), pictures of terrain in those of one level with
50 and more (17 classes, 2,216), figures in those of one level with 50 and more (19 classes, 1,569),
emoji in the subcategories of their table with 20 and more (31 classes, 1,142); of larger classes
every second, third or n-th picture, 200 at most, and 100 of figures. What is unsorted, and what is
no kind of thing (letters and symbols; light, fog, masks), is left out.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil


def in_folders(levels, *left_out):
  """Files by the first folders of their path."""

  def found(root):
    for path in sorted(root.rglob("*.png")):
      parts = path.relative_to(root).parts[:-1]
      if parts and parts[0] not in left_out and not path.is_symlink():
        yield "_".join(parts[:levels]), path

  return found


def in_the_table(root):
  """Emoji by their subcategory; those of other skins are not in the table."""
  table = json.loads((root / "emoji.json").read_text())
  for row in sorted(table, key=lambda row: row["image"]):
    if row["has_img_google"]:
      yield row["subcategory"].replace(" & ", "_"), root / "img/google/64" / row["image"]


NO_TERRAIN = (
  "embellishments fog light map-specific masks misc off-map portals symbols unwalkable void"
)
GAME = "usr/share/games/wesnoth/1.16/data/core/images"
KINDS = {  # by where the pictures are: how files are found, the fewest and the most of a class
  "usr/share/openclipart/png": (in_folders(2, "unsorted", "special"), 60, 200),
  "usr/share/tuxpaint/stamps": (in_folders(1, "symbols"), 20, 200),
  f"{GAME}/terrain": (in_folders(1, *NO_TERRAIN.split()), 50, 200),
  f"{GAME}/units": (in_folders(1), 50, 100),
  "package": (in_the_table, 20, 200),
}


def classes(found, fewest, most):
  """Files by class, at most so many of each."""
  by_class = collections.defaultdict(list)
  for name, path in found:
    by_class[name].append(path)
  return {
    name: files[:: -(-len(files) // most)]
    for name, files in sorted(by_class.items())
    if len(files) >= fewest
  }


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("source", type=pathlib.Path, help="where a package was unpacked")
  parser.add_argument("folder", type=pathlib.Path, help="a new folder of pictures")
  parser.add_argument("--part", default="", help="which folder of the game: terrain, or units")
  options = parser.parse_args()
  present = [kind for kind in KINDS if (options.source / kind).is_dir()]
  kinds = [kind for kind in present if kind.endswith(options.part)]
  if not kinds:
    parser.error(f"{options.source} has none of {', '.join(present or KINDS)} that is meant")
  find, *limits = KINDS[kinds[0]]
  for name, files in classes(find(options.source / kinds[0]), *limits).items():
    os.makedirs(options.folder / name)
    for number, file in enumerate(files):
      shutil.copyfile(file, options.folder / name / f"{number:04}.png")
    print(f"{name}: {len(files)}")


if __name__ == "__main__":
  main()
