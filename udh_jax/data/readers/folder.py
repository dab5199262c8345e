"""Any folder of pictures, as it comes."""

import pathlib
from typing import Any

import numpy as np

from udh_jax.data.pictures import (
  NO_PICTURES,
  list_pictures,
  open_pictures,
  open_regular,
  picture_size,
)
from udh_jax.data.readers.files import FILE_CHOICES, FILE_FIELDS, file_options
from udh_jax.data.types import Progress, Reader, Source
from udh_jax.errors import require


def read_folder(path: str, *, image_size: int, on_unreadable: str, progress: Progress) -> Source:
  """Reads the pictures in a folder and the folders in it.

  Where all pictures lie in subfolders, and in more than one, the first level is their class.

  Args:
    path: The folder.
    image_size: Side of the square that each picture becomes.
    on_unreadable: "skip" or "refuse".
    progress: Called with (files done, files in all) while files are checked.

  Returns:
    The source, in the order of the sorted relative paths.

  Raises:
    InputError: If there is no such folder or it holds fewer than two pictures.
  """
  require(path != "", "The data set 'folder' needs a folder of pictures; set data.path to it.")
  folder = pathlib.Path(path).expanduser()
  require(folder.is_dir(), f"{folder} is not a folder; set data.path to a folder of pictures.")
  files = list_pictures(folder)
  require(
    len(files) > 0,
    f"{folder} {NO_PICTURES}",
  )
  images, names, _ = open_pictures(
    folder, files, size=image_size, on_unreadable=on_unreadable, progress=progress
  )
  require(len(names) >= 2, f"{folder} holds one picture that can be read; at least two are needed.")
  labels, class_names = None, []
  if all("/" in name for name in names):
    found, numbers = np.unique([name.split("/")[0] for name in names], return_inverse=True)
    if len(found) > 1:
      labels, class_names = numbers.astype(np.int32), [str(name) for name in found]
  return Source(
    images=images,
    image_shape=(image_size, image_size, 3),
    names=names,
    labels=labels,
    class_names=class_names,
    fewer_queries=True,
    picture_side=_median_side(folder, names),
  )


def _median_side(folder: pathlib.Path, names: list[str]) -> int:
  """Short side of the pictures, in pixels; the median of some of them, spread over all."""
  sides = []
  for row in np.unique(np.linspace(0, len(names) - 1, min(_SAMPLED, len(names))).astype(int)):
    with open_regular(folder / names[row]) as file:
      sides.append(min(picture_size(file)))
  return int(np.median(sides))


_SAMPLED = 200


def _read(config: Any, progress: Progress) -> Source:
  return read_folder(config.path, **file_options(config), progress=progress)


FOLDER = Reader(_read, FILE_FIELDS, FILE_CHOICES)
