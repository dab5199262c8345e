"""Any folder of pictures, as it comes."""

import collections
import pathlib
from typing import Any

import numpy as np

from udh_jax.data.pictures import (
  NO_PICTURES,
  list_pictures,
  open_pictures,
  open_regular,
  passed_over,
  picture_size,
)
from udh_jax.data.readers.files import FILE_CHOICES, FILE_FIELDS, file_options
from udh_jax.data.types import Progress, Reader, Source
from udh_jax.errors import require


def read_folder(path: str, *, image_size: int, on_unreadable: str, progress: Progress) -> Source:
  """Reads the pictures in a folder and the folders in it.

  Where all pictures lie in subfolders, and in more than one, the first level is their class. What
  was passed over, and what speaks against these labels, is in the source's notes.

  Args:
    path: The folder.
    image_size: Side of the square that each picture becomes.
    on_unreadable: "skip" or "refuse".
    progress: Called with (files done, files in all) while files are checked.

  Returns:
    The source, in the order of the sorted relative paths.

  Raises:
    InputError: If there is no such folder, it holds fewer than two pictures, or they are gone when
      they have been checked.
  """
  require(path != "", "The data set 'folder' needs a folder of pictures; set data.path to it.")
  folder = pathlib.Path(path).expanduser()
  require(folder.is_dir(), f"{folder} is not a folder; set data.path to a folder of pictures.")
  others: collections.Counter[str] = collections.Counter()
  files = list_pictures(folder, others)
  notes = [f"{folder}: {passed_over(others)}"] if others else []
  require(len(files) > 0, f"{folder} {NO_PICTURES} {passed_over(others)}".rstrip())
  images, names, _ = open_pictures(
    folder, files, size=image_size, on_unreadable=on_unreadable, progress=progress
  )
  require(len(names) >= 2, f"{folder} holds one picture that can be read; at least two are needed.")
  labels, class_names = None, []
  inside = [name.split("/")[0] for name in names if "/" in name]
  found, numbers = np.unique(inside, return_inverse=True)
  if len(found) > 1:
    if len(inside) == len(names):
      labels, class_names = numbers.astype(np.int32), [str(name) for name in found]
    notes += _doubts(folder, names, found)
  return Source(
    images=images,
    image_shape=(image_size, image_size, 3),
    names=names,
    labels=labels,
    class_names=class_names,
    fewer_queries=True,
    picture_side=_median_side(folder, names),
    notes=notes,
  )


# Folders that divide a collection, in lower case.
_PARTS = {"train", "training", "val", "valid", "validation", "dev", "test", "testing"}


def _doubts(folder, names, subfolders) -> list[str]:
  """What speaks against labels that are names of subfolders, or has kept them from being."""
  strays = [name for name in names if "/" not in name]
  if strays:
    lie = "1 picture lies" if len(strays) == 1 else f"{len(strays):,} pictures lie"
    return [
      f"{folder}: {lie} in no subfolder (the first is {strays[0]}), so there are no labels; move "
      "what is there into a subfolder to have labels"
    ]
  if {name.lower() for name in subfolders} <= _PARTS:
    listed = ", ".join(subfolders)
    return [
      f"{folder}: the labels are {listed}, which look like parts of a collection and not like "
      "classes; to have classes as labels, give a folder whose own subfolders are the classes"
    ]
  return []


def _median_side(folder: pathlib.Path, names: list[str]) -> int:
  """Short side of the pictures, in pixels; the median of some of them, spread over all."""
  sides, problem = [], None
  for row in np.unique(np.linspace(0, len(names) - 1, min(_SAMPLED, len(names))).astype(int)):
    try:
      with open_regular(folder / names[row]) as file:
        sides.append(min(picture_size(file)))
    except Exception as error:  # gone or changed since it was decoded; Pillow raises many types
      problem = error
  require(
    sides,
    lambda: f"None of the pictures in {folder} can be read any more ({problem}); is a disk away?",
  )
  return int(np.median(sides))


_SAMPLED = 200


def _read(config: Any, progress: Progress) -> Source:
  return read_folder(config.path, **file_options(config), progress=progress)


FOLDER = Reader(_read, FILE_FIELDS, FILE_CHOICES)
