"""MIRFLICKR-25K in its official layout: pictures and labels, and the tags beside them."""

import collections
import logging
import pathlib
import re
from typing import Any

import numpy as np

from udh_jax.data.readers.files import FILE_CHOICES, FILE_FIELDS, PAIR_CHOICES, file_options
from udh_jax.data.readers.listing import Listing, open_listing, read_pairs, select_pairs
from udh_jax.data.types import Progress, Reader, Source
from udh_jax.errors import InputError, require

_IMAGE_FOLDERS = (".", "images", "mirflickr")
_LABEL_FOLDERS = ("annotations_v080", "mirflickr25k_annotations_v080")
_TAG_FOLDERS = ("meta/tags", "tags")

_NEEDED = (
  "unpack mirflickr25k.zip there, and mirflickr25k_annotations_v080.zip into its subfolder "
  "annotations_v080 (both from press.liacs.nl/mirflickr)"
)


def read_flickr25k(path: str, *, image_size: int, on_unreadable: str, progress: Progress) -> Source:
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
    InputError: If pictures or annotations are not there, or an annotation is not a number.

  References:
    Huiskes and Lew, The MIR Flickr Retrieval Evaluation, ACM MIR 2008.
  """
  root, folder, numbers = _find_pictures("flickr25k", path)
  annotations = _read_annotations(root)
  require(len(annotations) > 0, f"{root} holds no annotations_v080/*.txt; {_NEEDED}.")
  listing = Listing(
    folder, list(numbers), _labels(annotations, numbers.values()), list(annotations)
  )
  return open_listing(
    listing, image_size=image_size, on_unreadable=on_unreadable, progress=progress
  )


def list_mirflickr25k(path: str, *, min_tag_count: int, on_unpaired: str) -> Listing:
  """Lists the pictures with their tags and labels, without opening any.

  The vocabulary is every tag on at least ``min_tag_count`` pictures, the most frequent first, equal
  ones by name. A pair has at least one tag of the vocabulary and at least one label. With 20
  pictures a tag and what is not a pair left out, the real set has 1,386 tags, 20,015 pairs by the
  papers that use it.

  Args:
    path: Folder as for `read_flickr25k`, with the tags in files tags1.txt, tags2.txt, ... in
      meta/tags or tags, of the folder itself or of that of the pictures. Without a folder of
      annotations there are no labels, and a pair needs tags alone.
    min_tag_count: On how many pictures a tag has to be.
    on_unpaired: What is done with pictures that are not pairs: "skip" leaves them out, with one
      warning; "refuse" makes them an error; "keep" keeps them. Tag files without a picture are
      counted there too.

  Returns:
    The listing, ordered by the pictures' numbers.

  Raises:
    InputError: If pictures or tags are not there, an annotation is not a number, no tag is frequent
      enough, or by ``on_unpaired``.

  References:
    Jiang and Li, Deep Cross-Modal Hashing, CVPR 2017, section 4.1 (the subset);
    Huiskes and Lew, The MIR Flickr Retrieval Evaluation, ACM MIR 2008 (the data).
  """
  root, folder, numbers = _find_pictures("mirflickr25k", path)
  annotations = _read_annotations(root)
  tags, spare = _read_tags(root, folder, set(numbers.values()))
  tags = [tags.get(number, set()) for number in numbers.values()]
  counts = collections.Counter(tag for found in tags for tag in found)
  words = sorted(
    (tag for tag, count in counts.items() if count >= min_tag_count),
    key=lambda tag: (-counts[tag], tag),
  )
  require(
    len(words) > 0,
    f"No tag in {root} is on {min_tag_count} pictures (the most frequent one is on "
    f"{max(counts.values(), default=0)}); lower min_tag_count.",
  )
  column = {word: position for position, word in enumerate(words)}
  texts = np.zeros((len(tags), len(words)), bool)
  for row, found in enumerate(tags):
    texts[row, [column[tag] for tag in found if tag in column]] = True
  labels = _labels(annotations, numbers.values()) if annotations else None
  listing = Listing(
    folder,
    list(numbers),
    labels,
    list(annotations),
    texts,
    words,
    {"min_tag_count": min_tag_count, "on_unpaired": on_unpaired},
  )
  untagged = np.array([not found for found in tags])
  problems = {
    "have no tag": untagged,
    f"have none of the {len(words)} tags that {min_tag_count} pictures have": ~texts.any(axis=1)
    & ~untagged,
  }
  if labels is not None:
    problems["have no label"] = ~labels.any(axis=1)
  else:
    logging.getLogger(__name__).warning(
      "%s holds no folder %s: there are no labels, so nothing can be scored.",
      root,
      _LABEL_FOLDERS[0],
    )
  strays = f"{spare} tag files have no picture" if spare else ""
  return select_pairs(listing, problems, on_unpaired, strays=strays)


def _find_pictures(name, path):
  """Root, folder of the pictures, and number of each picture by file, in the order of numbers."""
  require(path != "", f"The data set {name!r} needs a folder: set data.path to it, and {_NEEDED}.")
  root = pathlib.Path(path).expanduser()
  require(root.is_dir(), f"{root} is not a folder; make it, and {_NEEDED}.")
  for place in _IMAGE_FOLDERS:
    numbers = _numbered(root / place, "im", ".jpg")
    if numbers:
      return root, root / place, numbers
  raise InputError(
    f"{root} holds no pictures im1.jpg, im2.jpg, ..., nor do its images/ and mirflickr/; {_NEEDED}."
  )


def _numbered(folder, start, end):
  """Number of each file such as im1.jpg by its name, in the order of numbers."""
  pattern = re.compile(re.escape(start) + r"(\d+)" + re.escape(end))
  matches = [pattern.fullmatch(file.name) for file in folder.glob(f"{start}*{end}")]
  numbers = {match.string: int(match[1]) for match in matches if match}
  return dict(sorted(numbers.items(), key=lambda item: item[1]))


def _read_annotations(root):
  """Numbers of the pictures that have each label, by label; empty without a folder of them."""
  folders = [root / folder for folder in _LABEL_FOLDERS if (root / folder).is_dir()]
  files = [
    file
    for folder in folders
    for file in sorted(folder.glob("*.txt"))
    if not file.stem.endswith("_r1") and file.stem.lower() != "readme"
  ]
  if folders:
    require(len(files) > 0, f"{root} holds no annotations_v080/*.txt; {_NEEDED}.")
  annotations = {}
  for file in files:
    try:
      annotations[file.stem] = np.array(file.read_text().split(), np.int64)
    except ValueError as error:
      raise InputError(f"{file} has to hold one image number a line ({error}).") from error
  return annotations


def _labels(annotations, numbers):
  numbers = np.fromiter(numbers, np.int64)
  return np.stack([np.isin(numbers, members) for members in annotations.values()], axis=1)


def _read_tags(root, folder, numbers):
  """Tags of each picture by its number, and how many tag files have no picture."""
  places = [parent / name for name in _TAG_FOLDERS for parent in (root, folder)]
  for place in places:
    files = _numbered(place, "tags", ".txt")
    if files:
      break
  else:
    raise InputError(
      f"{root} holds no tags: looked for tags1.txt, tags2.txt, ... in "
      f"{', '.join(map(str, dict.fromkeys(places)))}; {_NEEDED}."
    )
  # Owners typed the tags: bytes that are not UTF-8 still tell one tag from another.
  tags = {
    number: {
      line.strip()
      for line in (place / file).read_text("utf-8", "surrogateescape").split("\n")
      if line.strip()
    }
    for file, number in files.items()
    if number in numbers
  }
  return tags, len(files) - len(tags)


def _read_images(config: Any, progress: Progress) -> Source:
  return read_flickr25k(config.path, **file_options(config), progress=progress)


def _read_pairs(config: Any, progress: Progress) -> Source:
  settings = {"min_tag_count": config.min_tag_count, "on_unpaired": config.on_unpaired}
  return read_pairs("mirflickr25k", config, progress, list_mirflickr25k, settings)


# The usual protocol of hashing papers on it.
FLICKR_FIELDS = {**FILE_FIELDS, "num_queries": 2000, "num_train": 5000}
FLICKR25K = Reader(_read_images, FLICKR_FIELDS, FILE_CHOICES)
MIRFLICKR25K = Reader(
  _read_pairs, {**FLICKR_FIELDS, "min_tag_count": 20, "on_unpaired": "skip"}, PAIR_CHOICES
)
