"""NUS-WIDE in its official layout: pictures with 1,000 tags and 81 concepts."""

import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from udh_jax.data.readers.files import FILE_FIELDS, PAIR_CHOICES
from udh_jax.data.readers.listing import Listing, read_pairs, select_pairs
from udh_jax.data.types import Progress, Reader, Source
from udh_jax.errors import InputError, require

# How many of the most frequent concepts each selection takes.
NUS_WIDE_SELECTIONS = {"tc10": 10, "tc21": 21}

# Where each part may lie: as its archive unpacks, or without the archive's folder.
_IMAGE_LISTS = ("ImageList/Imagelist.txt", "ImageList/ImageList.txt", "Imagelist.txt")
_IMAGE_FOLDERS = ("Flickr", "images", "Flickr/Flickr")
_LABEL_FOLDERS = ("Groundtruth/AllLabels", "AllLabels")
_CONCEPT_LISTS = ("ConceptsList/Concepts81.txt", "Concepts81.txt")
_TAGS = ("NUS_WID_Tags/AllTags1k.txt", "AllTags1k.txt")
_TAG_LISTS = ("NUS_WID_Tags/TagList1k.txt", "ConceptsList/TagList1k.txt", "TagList1k.txt")

_NEEDED = (
  "unpack ImageList.zip, Groundtruth.zip, ConceptsList.zip and NUS_WID_Tags.zip of the NUS-WIDE "
  "site there, each into the folder of its name, and the pictures into Flickr/"
)


def list_nus_wide(path: str, *, selection: str, on_unpaired: str) -> Listing:
  """Lists the pictures of the most frequent concepts, with tags and labels; opens none.

  A picture is in if it has at least one of the chosen concepts, whether or not it has one of the
  1,000 tags: only so do the counts come out that papers give, 186,577 (TC10) and 195,834 (TC21).
  With ``on_unpaired`` "skip" the pictures without a tag go as well, which leaves 181,365 and
  190,421. The four counts are those that github.com/iTomxy/data (nuswide/make.clean.py) notes; we
  have not had the files to count them ourselves.

  Args:
    path: Folder with ImageList/Imagelist.txt, NUS_WID_Tags/AllTags1k.txt, the pictures in Flickr/
      or images/, and Groundtruth/AllLabels/Labels_*.txt, without which there are no labels and all
      pictures are listed. Concepts81.txt and TagList1k.txt are used where they are there.
    selection: "tc10" or "tc21": the 10 or 21 concepts with the most pictures, equal ones by name.
    on_unpaired: What is done with pictures without a tag: "keep" keeps them, "skip" leaves them out
      with one warning, "refuse" makes them an error.

  Returns:
    The listing, in the order of Imagelist.txt; classes are ordered by name.

  Raises:
    InputError: If a file is not there, is of another length than the list of pictures or holds
      anything but 0 and 1, or by ``on_unpaired``.

  References:
    Chua et al., NUS-WIDE: A Real-World Web Image Database, CIVR 2009 (the data); Jiang and Li, Deep
    Cross-Modal Hashing, CVPR 2017, section 4.1 (the subset).
  """
  require(
    path != "", f"The data set 'nus_wide' needs a folder: set data.path to it, and {_NEEDED}."
  )
  root = pathlib.Path(path).expanduser()
  require(root.is_dir(), f"{root} is not a folder; make it, and {_NEEDED}.")
  image_list = _require_file(root, _IMAGE_LISTS)
  # Written on Windows, in some copies with the drive and folder of its author before it.
  files = ["/".join(line.replace("\\", "/").split("/")[-2:]) for line in _read_lines(image_list)]
  require(len(files) > 0, f"{image_list} names no picture; {_NEEDED}.")
  folder = _find(root, _IMAGE_FOLDERS)
  require(
    folder is not None, f"{root} holds none of the folders {', '.join(_IMAGE_FOLDERS)}; {_NEEDED}."
  )
  tags = _require_file(root, _TAGS)
  labels, concepts = _read_labels(root, image_list, len(files))
  if labels is None:
    logging.getLogger(__name__).warning(
      "%s holds no %s/Labels_*.txt: there are no labels, so nothing can be selected by concept or "
      "scored.",
      root,
      _LABEL_FOLDERS[0],
    )
    kept = np.ones(len(files), bool)
  else:
    chosen = _most_frequent(labels, NUS_WIDE_SELECTIONS[selection], root)
    concepts = [concepts[column] for column in chosen]
    kept = labels[:, chosen].any(axis=1)
    labels = labels[np.ix_(kept, chosen)]
  texts = read_indicators(tags, kept, image_list)
  tag_list = _find(root, _TAG_LISTS)
  words = _read_lines(tag_list) if tag_list else []
  require(
    len(words) in (0, texts.shape[1]),
    f"{tag_list} names {len(words)} tags, but {tags} has {texts.shape[1]} columns; they have to be "
    f"of one release: {_NEEDED}.",
  )
  files = [files[row] for row in np.flatnonzero(kept)]
  settings = {"selection": selection, "on_unpaired": on_unpaired}
  listing = Listing(folder, files, labels, concepts, texts, words, settings)
  return select_pairs(listing, {"have no tag": np.logical_not(texts.any(axis=1))}, on_unpaired)


def _read_labels(root, image_list, num_rows):
  """Labels [n, L] and the concepts in the order of their names, or None and nothing."""
  folder = _find(root, _LABEL_FOLDERS)
  files = sorted(folder.glob("Labels_*.txt")) if folder else []
  if not files:
    return None, []
  columns = {file.stem.removeprefix("Labels_"): file for file in files}
  concept_list = _find(root, _CONCEPT_LISTS)
  missing = sorted(set(_read_lines(concept_list)) - set(columns)) if concept_list else []
  require(
    not missing,
    f"{folder} lacks Labels_*.txt of {len(missing)} concepts that {concept_list} names (such as "
    f"{', '.join(missing[:3])}); unpack Groundtruth.zip again.",
  )
  all_rows = np.ones(num_rows, bool)
  labels = np.empty((num_rows, len(columns)), bool)
  for position, concept in enumerate(sorted(columns)):
    column = read_indicators(columns[concept], all_rows, image_list)
    require(
      column.shape[1] == 1,
      f"{columns[concept]} has {column.shape[1]} values a line; one is expected.",
    )
    labels[:, position] = column[:, 0]
  return labels, sorted(columns)


def _most_frequent(labels, count, root):
  """Columns of the ``count`` concepts with the most pictures, in order."""
  require(
    labels.shape[1] >= count,
    f"{root} holds the labels of {labels.shape[1]} concepts, {count} are to be selected; "
    f"{_NEEDED}.",
  )
  # The columns are in the order of names, and a stable sort leaves equal ones so.
  return np.sort(np.argsort(-labels.sum(axis=0), kind="stable")[:count])


def read_indicators(
  path: str | os.PathLike[str], kept: np.ndarray, image_list: str | os.PathLike[str]
) -> np.ndarray:
  """Reads lines of zeros and ones separated by tabs or spaces, such as AllTags1k.txt.

  The result is filled block by block as the file is read, so that little else needs memory.

  Args:
    path: The file; empty lines do not count.
    kept: Which lines are wanted, one entry for each there has to be. Bool array of shape ``[n]``.
    image_list: The file that says how many lines there have to be.

  Returns:
    Bool array of shape ``[kept.sum(), columns]``.

  Raises:
    InputError: If there is anything but 0 and 1, a line is longer than another, or the number of
      lines is another one.
  """
  result, stored = np.empty((kept.sum(), 0), bool), 0
  done, line = 0, 0
  for block in _whole_lines(path):
    characters = np.frombuffer(block, np.uint8)
    digit = _DIGIT[characters]
    at = np.flatnonzero(digit)
    ends = np.flatnonzero(characters == _NEWLINE)
    counts = np.diff(np.searchsorted(at, ends), prepend=0)
    filled = counts > 0
    if done == 0 and filled.any():
      result = np.empty((len(result), counts[filled][0]), bool)
    strange = ~(digit | _BLANK[characters])
    strange[1:] |= digit[1:] & digit[:-1]  # such as 10: one value is one digit
    wrong = filled & (counts != result.shape[1])
    wrong[np.searchsorted(ends, np.flatnonzero(strange))] = True
    if wrong.any():
      raise InputError(
        f"{path} line {line + int(wrong.argmax()) + 1} is not {result.shape[1]} values 0 or 1 "
        "separated by tabs or spaces; unpack the file again."
      )
    number = int(filled.sum())
    if done < len(kept):
      rows = (characters[at] == ord("1")).reshape(number, result.shape[1])
      wanted = rows[: len(kept) - done][kept[done : done + number]]
      result[stored : stored + len(wanted)] = wanted
      stored += len(wanted)
    done += number
    line += len(ends)
  require(
    done == len(kept),
    f"{path} has {done} lines, but {image_list} names {len(kept)} pictures; both have to be of one "
    "release: unpack them again.",
  )
  return result


_NEWLINE = ord("\n")
_DIGIT = np.isin(np.arange(256), [ord("0"), ord("1")])
_BLANK = np.isin(np.arange(256), [ord(character) for character in " \t\r\n"])
_BLOCK_BYTES = 4 << 20


def _whole_lines(path) -> Iterator[bytes]:
  """The file in blocks that end with a line."""
  rest = b""
  with open(path, "rb") as file:
    while block := file.read(_BLOCK_BYTES):
      head, newline, tail = block.rpartition(b"\n")
      if newline:
        yield rest + head + newline
        rest = tail
      else:
        rest += tail
  if rest:
    yield rest + b"\n"


def _read_lines(path):
  text = path.read_text("utf-8", "surrogateescape")
  return [line.strip() for line in text.split("\n") if line.strip()]


def _find(root, places):
  """The first of the places that is there, or None."""
  return next((root / place for place in places if (root / place).exists()), None)


def _require_file(root, places):
  found = _find(root, places)
  if found is None:
    raise InputError(f"{root} holds no {places[0]}; {_NEEDED}.")
  return found


def _read(config: Any, progress: Progress) -> Source:
  settings = {"selection": config.selection, "on_unpaired": config.on_unpaired}
  return read_pairs(f"nus_wide/{config.selection}", config, progress, list_nus_wide, settings)


NUS_WIDE = Reader(
  _read,
  {
    **FILE_FIELDS,
    "num_queries": 2000,
    "num_train": 5000,
    "selection": "tc10",
    "on_unpaired": "keep",
  },
  {**PAIR_CHOICES, "selection": tuple(NUS_WIDE_SELECTIONS)},
)
