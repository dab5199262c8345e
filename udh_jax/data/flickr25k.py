"""MIRFLICKR-25K in its official layout."""

import pathlib
import re
from collections.abc import Callable

import numpy as np

from udh_jax.data.dataset import Source
from udh_jax.data.pictures import open_pictures
from udh_jax.errors import InputError, require

_IMAGE_FOLDERS = (".", "images", "mirflickr")
_LABEL_FOLDERS = ("annotations_v080", "mirflickr25k_annotations_v080")


def read_flickr25k(
  path: str, *, image_size: int, on_unreadable: str, progress: Callable[[int, int], None]
) -> Source:
  """Reads the pictures im1.jpg, im2.jpg, ... and their 24 labels.

  The labels are the "potential" ones, as hashing papers use them; the narrower "relevant" ones, in
  files that end in _r1.txt, are not used. Pictures without any label stay in the database and may
  be trained on, but are never queries: nothing would be relevant to them.

  Args:
    path: Folder with the pictures (in it, in images/ or in mirflickr/) and with a folder
      annotations_v080 or mirflickr25k_annotations_v080.
    image_size: Side of the square that each picture becomes.
    on_unreadable: "skip" or "refuse".
    progress: Called with (files done, files in all) while files are checked.

  Returns:
    The source, ordered by the pictures' numbers.

  Raises:
    InputError: If pictures or annotations are not there, or an annotation is no number.

  References:
    Huiskes and Lew, The MIR Flickr Retrieval Evaluation, ACM MIR 2008.
  """
  needed = (
    "unpack mirflickr25k.zip there, and mirflickr25k_annotations_v080.zip into its subfolder "
    "annotations_v080 (both from press.liacs.nl/mirflickr)"
  )
  require(
    path != "", f"The data set 'flickr25k' needs a folder: set data.path to it, and {needed}."
  )
  root = pathlib.Path(path).expanduser()
  require(root.is_dir(), f"{root} is not a folder; make it, and {needed}.")
  for name in _IMAGE_FOLDERS:
    matches = [re.fullmatch(r"im(\d+)\.jpg", file.name) for file in (root / name).glob("im*.jpg")]
    number_of = {match.string: int(match[1]) for match in matches if match}
    if number_of:
      folder = root / name
      break
  else:
    raise InputError(f"{root} holds no pictures im1.jpg, im2.jpg, ..., nor do its images/ and "
                     f"mirflickr/; {needed}.")  # fmt: skip
  annotations = _read_annotations(root, needed)
  pictures = open_pictures(
    folder,
    sorted(number_of, key=number_of.get),
    size=image_size,
    on_unreadable=on_unreadable,
    progress=progress,
  )
  numbers = np.array([number_of[name] for name in pictures.names])
  labels = np.stack([np.isin(numbers, members) for members in annotations.values()], axis=1)
  return Source(
    images=pictures.images,
    image_shape=(image_size, image_size, 3),
    names=pictures.names,
    labels=labels,
    class_names=list(annotations),
  )


def _read_annotations(root, needed):
  """Numbers of the pictures that have each label, by label."""
  files = [
    file
    for folder in _LABEL_FOLDERS
    for file in sorted((root / folder).glob("*.txt"))
    if not file.stem.endswith("_r1") and file.stem.lower() != "readme"
  ]
  require(len(files) > 0, f"{root} holds no annotations_v080/*.txt; {needed}.")
  annotations = {}
  for file in files:
    try:
      annotations[file.stem] = np.array(file.read_text().split(), np.int64)
    except ValueError as error:
      raise InputError(f"{file} has to hold one image number a line ({error}).") from error
  return annotations
