"""Two collections of drawings and cut-out photographs that nothing was tuned on, from Debian.

  apt-get download openclipart-png tuxpaint-stamps-default
  dpkg -x openclipart-png_*.deb clipart; dpkg -x tuxpaint-stamps-default_*.deb stamps
  python benchmarks/debian_pictures.py clipart clipart_folder
  python benchmarks/debian_pictures.py stamps stamps_folder

Clip art in folders of two levels with 60 pictures and more (19 classes, 2,125 pictures), stamps in
those of one level with 20 and more (7 classes, 466); of larger folders every second, third or n-th
picture, 200 at most. Folders of unsorted pictures, letters and symbols are left out.
"""

import argparse
import collections
import os
import pathlib
import shutil

KINDS = {  # where the pictures are: levels that make a class, fewest pictures, what is left out
  "usr/share/openclipart/png": (2, 60, ("unsorted", "special")),
  "usr/share/tuxpaint/stamps": (1, 20, ("symbols",)),
}
MOST = 200  # pictures of a class


def classes(root, levels, fewest, left_out):
  """Files by class, at most `MOST` of each."""
  found = collections.defaultdict(list)
  for path in sorted(root.rglob("*.png")):
    parts = path.relative_to(root).parts[:-1]
    if parts and parts[0] not in left_out and not path.is_symlink():
      found["_".join(parts[:levels])].append(path)
  return {
    name: files[:: -(-len(files) // MOST)]
    for name, files in sorted(found.items())
    if len(files) >= fewest
  }


def main():
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("source", type=pathlib.Path, help="where dpkg -x has unpacked a package")
  parser.add_argument("folder", type=pathlib.Path, help="a new folder of pictures")
  options = parser.parse_args()
  kinds = [kind for kind in KINDS if (options.source / kind).is_dir()]
  if not kinds:
    parser.error(f"{options.source} has neither {' nor '.join(KINDS)}")
  for name, files in classes(options.source / kinds[0], *KINDS[kinds[0]]).items():
    os.makedirs(options.folder / name)
    for number, file in enumerate(files):
      shutil.copyfile(file, options.folder / name / f"{number:04}.png")
    print(f"{name}: {len(files)}")


if __name__ == "__main__":
  main()
