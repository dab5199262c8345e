"""Features of pictures and texts that were made elsewhere, in one NumPy or MATLAB file."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from udh_jax.data.readers.arrays import listing, open_arrays
from udh_jax.data.types import Reader, Source
from udh_jax.errors import require, require_finite


def read_features(
  path: str,
  *,
  image: str,
  text: str,
  label: str,
  image_test: str,
  text_test: str,
  label_test: str,
  labels_used: str,
  items_in_columns: str = "",
  train_items: str = "",
  test_items: str = "",
  count_from: str = "file",
  default_file: str = "",
) -> Source:
  """Reads image features, and the texts and labels beside them.

  Texts that are zeros and ones alone become bool, bytes stay bytes, others become float32. Labels
  are one whole number an item, of any values (classes are numbered in the order of the values), or
  rows of zeros and ones. An array ``class_names`` gives the classes their names.

  Args:
    path: An .npz file, or a .mat file of MATLAB version 4 to 7.3.
    image: Name of the array of image features, ``[n, d]``.
    text: Name of the array of texts, ``[n, t]``, or "" for none.
    label: Name of the array of labels, ``[n]``, ``[n, 1]`` or ``[n, L]``, or "" for none.
    image_test: Name of the image features of the official test part, or "" for none.
    text_test: Name of its texts.
    label_test: Name of its labels.
    labels_used: What labels were used to make the image features, in words.
    items_in_columns: Comma-separated names of arrays, or "all", that have one column an item.
    train_items: Name of a list in the file of the items of the training part, or "".
    test_items: Name of a list of those of the official test part, or "". Items in neither list are
      left out; where one list is missing, its part is all that the other has not.
    count_from: From which number the lists count: "0", "1", or "file": 1 in a .mat file, else 0.
    default_file: Name of the file where ``path`` may be its folder.

  Returns:
    The source. Its items are called item_0, ..., or train_0, ... and test_0, ... where the parts
    are arrays of their own.

  Raises:
    InputError: If the file or an array is not there, or the arrays do not fit together.
  """
  file = _locate(path, default_file)
  names = {"image": image, "text": text, "label": label}
  test_names = {"image": image_test, "text": text_test, "label": label_test}
  require(image != "", "The data field image is ''; give the name of the array of image features.")
  for field, name in names.items():
    require(
      bool(test_names[field]) == bool(name and image_test),
      f"The data field {field} is {name!r} and {field}_test {test_names[field]!r}, with image_test "
      f"{image_test!r}; give {'both or neither' if image_test else 'no array of a test part'}.",
    )
  parts = [names, test_names] if image_test else [names]
  wanted = [name for part in parts for name in part.values() if name]
  lists = (train_items, test_items)
  require(
    not (image_test and any(lists)),
    f"The test part is named twice, by image_test {image_test!r} and by lists of items "
    f"{', '.join(filter(None, lists))}; give one of them.",
  )
  arrays = _read_arrays(file, [*wanted, *filter(None, lists)], optional=["class_names"])
  arrays = _turned(file, arrays, wanted, items_in_columns)
  images, texts, labels = (
    _join(file, field, parts, [_part(file, arrays, part, field) for part in parts])
    for field in names
  )
  images = _as_float(file, image, images)
  class_names = []
  if labels is not None:
    labels, class_names = _number_classes(file, label, labels, arrays.get("class_names"))
  first_test_row = len(arrays[image]) if image_test else None
  names_of_items = _item_names(len(images), first_test_row)
  first = int(count_from) if count_from != "file" else int(file.suffix.lower() == ".mat")
  split = _split_rows(file, arrays, lists, first, len(images))
  if split is not None:
    rows, first_test_row = np.concatenate(split), len(split[0])
    images, texts, labels = (
      None if values is None else values[rows] for values in (images, texts, labels)
    )
    names_of_items = [names_of_items[row] for row in rows]
  return Source(
    images=images,
    image_shape=images.shape[1:],
    names=names_of_items,
    labels=labels,
    class_names=class_names,
    first_test_row=first_test_row,
    fewer_queries=True,
    texts=None if texts is None else _as_texts(file, text, texts),
    labels_used=labels_used,
  )


def _locate(path, default_file):
  require(path != "", "Precomputed features need a file: set data.path to an .npz or .mat file.")
  file = pathlib.Path(path).expanduser()
  if default_file and file.is_dir():
    file = file / default_file
  require(
    file.is_file(), f"{file} is not a file; set data.path to the .npz or .mat file of features."
  )
  require(
    file.suffix.lower() in (".npz", ".mat"),
    f"{file} ends in {file.suffix!r}; features are read from .npz and .mat files: convert it.",
  )
  return file


def _part(file, arrays, part, field):
  """One array of the training or the test part, with its number of rows checked."""
  name = part[field]
  if not name:
    return None
  values = arrays[name]
  require(
    values.dtype.kind in "biuf",
    f"{file}: {name} has the type {values.dtype}; numbers are needed.",
  )
  if field == "label" and 1 in values.shape:
    values = values.reshape(-1)  # MATLAB knows no vectors, only rows and columns
  dimensions = (1, 2) if field == "label" else (2,)
  require(
    values.ndim in dimensions,
    f"{file}: {name} has the shape {values.shape}; one row for each item is needed"
    f"{' or one number' if field == 'label' else ', in two dimensions'}.",
  )
  size = len(arrays[part["image"]])
  require(
    len(values) == size,
    f"{file}: {part['image']} has {size} rows and {name} {len(values)}; row i of both has to be "
    "the same item.",
  )
  return values


def _join(file, field, parts, values):
  """Training and test part, one after another."""
  if values[0] is None or len(values) == 1:
    return values[0]
  first, test = values
  require(
    first.shape[1:] == test.shape[1:],
    f"{file}: {parts[0][field]} has the shape {first.shape} and {parts[1][field]} {test.shape}; "
    "both parts have to be of one width.",
  )
  return np.concatenate(values)


def _as_float(file, name, values):
  with np.errstate(over="ignore"):  # found by the next line
    values = np.ascontiguousarray(values, np.float32)
  require_finite(f"{file}: {name}", values)
  return values


def _as_texts(file, name, values):
  if ((values == 0) | (values == 1)).all():
    return np.ascontiguousarray(values, bool)
  if values.dtype == np.uint8:
    return np.ascontiguousarray(values)
  return _as_float(file, name, values)


NO_CLASS = -1  # the label of an item without one


def _number_classes(file, name, values, class_names):
  """Labels as a `Source` has them, and the names of the classes."""
  require_finite(f"{file}: {name}", values)
  if values.ndim == 2:
    require(
      bool(((values == 0) | (values == 1)).all()),
      f"{file}: {name} has the shape {values.shape}, so it has to hold 0 and 1 alone; its values "
      f"go from {values.min()} to {values.max()}.",
    )
    labels, found = values.astype(bool), [str(column) for column in range(values.shape[1])]
  else:
    require(
      bool((values == np.round(values)).all()) if values.dtype.kind == "f" else True,
      f"{file}: {name} has the shape {values.shape}, so it has to hold whole numbers.",
    )
    numbers, labels = np.unique(values, return_inverse=True)
    if len(numbers) > 2 and numbers[0] == NO_CLASS:  # of two numbers, -1 and 1, each is a class
      numbers, labels = numbers[1:], labels - 1
    labels, found = labels.astype(np.int32), [str(int(number)) for number in numbers]
  if class_names is None:
    return labels, found
  require(
    class_names.size == len(found),
    f"{file}: class_names has {class_names.size} names, but {name} {len(found)} classes; they have "
    "to be the same classes in the same order.",
  )
  return labels, [_as_string(item) for item in class_names.reshape(-1)]


def _as_string(item):
  """A class name; in MATLAB's cells each is an array of its own."""
  text = "".join(map(str, item.reshape(-1))) if isinstance(item, np.ndarray) else str(item)
  return text.strip()


def _item_names(size, first_test_row):
  if first_test_row is None:
    return [f"item_{row}" for row in range(size)]
  train = [f"train_{row}" for row in range(first_test_row)]
  return train + [f"test_{row}" for row in range(size - first_test_row)]


def _read_arrays(
  file: pathlib.Path, wanted: Sequence[str], *, optional: Sequence[str]
) -> dict[str, np.ndarray]:
  """Reads arrays by their names, or says which ones the file holds."""
  with open_arrays(file) as arrays:
    missing = [name for name in wanted if name not in arrays]
    require(
      not missing,
      lambda: (
        f"{file} holds no array {', '.join(missing)}; it holds {listing(arrays)}: name one of "
        "these."
      ),
    )
    return {name: arrays[name].read() for name in [*wanted, *(n for n in optional if n in arrays)]}


def _turned(
  file: pathlib.Path, arrays: dict[str, np.ndarray], names: Sequence[str], columns: str
) -> dict[str, np.ndarray]:
  """The arrays with one row an item, where some have one column an item."""
  named = [name.strip() for name in columns.split(",") if name.strip()]
  chosen = list(names) if named == ["all"] else named
  for name in chosen:
    require(
      name in names,
      f"The data field items_in_columns names {name!r}, which is none of the arrays that are read "
      f"({', '.join(names)}); name some of these, or all.",
    )
  return {
    name: array.T if name in chosen and array.ndim == 2 else array for name, array in arrays.items()
  }


def _split_rows(
  file: pathlib.Path, arrays: dict[str, np.ndarray], names: Sequence[str], first: int, count: int
) -> list[np.ndarray] | None:
  """Rows of the training and of the test part, by the file's own lists; None if it has none.

  A list is numbers of items, counted from ``first``, or one truth value an item. Where one part has
  no list, it is all items that the other has not.
  """
  listed = {
    position: _rows_of(file, name, arrays[name], first, count)
    for position, name in enumerate(names)
    if name
  }
  if not listed:
    return None
  parts = [
    listed[position] if position in listed else np.setdiff1d(np.arange(count), listed[1 - position])
    for position in (0, 1)
  ]
  both = np.intersect1d(parts[0], parts[1])
  require(
    not len(both),
    lambda: (
      f"{file}: {len(both)} items are in {names[0]} and in {names[1]} (the first is "
      f"{both[0] + first}); an item has to be in one part."
    ),
  )
  return parts


def _rows_of(file, name, values, first, count):
  values = np.asarray(values).reshape(-1)
  if values.dtype == bool or (len(values) == count and set(np.unique(values)) <= {0, 1}):
    require(
      len(values) == count,
      f"{file}: {name} has {len(values)} truth values, but there are {count} items.",
    )
    return np.flatnonzero(values)
  require(
    values.dtype.kind in "iuf" and bool((values == np.round(values)).all()),
    f"{file}: {name} has the type {values.dtype}; whole numbers of items are needed.",
  )
  rows = values.astype(np.int64) - first
  outside = (rows < 0) | (rows >= count)
  require(
    not outside.any(),
    lambda: (
      f"{file}: {name} names item {values[outside][0]:.0f}, but there are {count} items, counted "
      f"from {first}; set the data field count_from if they are counted otherwise."
    ),
  )
  require(len(np.unique(rows)) == len(rows), f"{file}: {name} names an item twice; name each once.")
  return rows


def _read(config: Any, progress: Any, *, default_file: str = "") -> Source:
  del progress  # one file, read at once
  fields = {field: getattr(config, field) for field in _ARRAYS if hasattr(config, field)}
  return read_features(config.path, **fields, default_file=default_file)


_ARRAYS = {
  "image": "image",
  "text": "text",
  "label": "label",
  "image_test": "",
  "text_test": "",
  "label_test": "",
  "labels_used": "unknown (features given)",
  "items_in_columns": "",
  "train_items": "",
  "test_items": "",
  "count_from": "file",
}
_CHOICES = {"count_from": ("file", "0", "1")}
_WIKIPEDIA_ARRAYS = {
  **{field: f"{field}_train" for field in ("image", "text", "label")},
  **{f"{field}_test": f"{field}_test" for field in ("image", "text", "label")},
  "labels_used": "none (SIFT histograms)",
}
FEATURES = Reader(_read, {"path": "", **_ARRAYS}, _CHOICES)
WIKIPEDIA = Reader(
  functools.partial(_read, default_file="wikipedia.npz"),
  {"num_queries": 693, "num_validation": 217, "path": "", **_WIKIPEDIA_ARRAYS},
)
