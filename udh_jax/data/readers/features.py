"""Features of pictures and texts that were made elsewhere, in one NumPy or MATLAB file."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from udh_jax.data.types import Reader, Source
from udh_jax.errors import InputError, require, require_finite


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
    default_file: Name of the file where ``path`` may be its folder.

  Returns:
    The source. Its items are called item_0, ..., or train_0, ... and test_0, ....

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
  arrays = _read_arrays(file, wanted, optional=["class_names"])
  images, texts, labels = (
    _join(file, field, parts, [_part(file, arrays, part, field) for part in parts])
    for field in names
  )
  images = _as_float(file, image, images)
  class_names = []
  if labels is not None:
    labels, class_names = _number_classes(file, label, labels, arrays.get("class_names"))
  first_test_row = len(arrays[image]) if image_test else None
  return Source(
    images=images,
    image_shape=images.shape[1:],
    names=_item_names(len(images), first_test_row),
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


_Reader = tuple[Sequence[str], Callable[[str], np.ndarray]]


def _read_arrays(
  file: pathlib.Path, wanted: Sequence[str], *, optional: Sequence[str]
) -> dict[str, np.ndarray]:
  """Reads arrays by their names, or says which ones the file holds."""
  try:
    with (_open_npz if file.suffix.lower() == ".npz" else _open_mat)(file) as (names, read):
      missing = [name for name in wanted if name not in names]
      require(
        not missing,
        lambda: (
          f"{file} holds no array {', '.join(missing)}; it holds "
          f"{', '.join(f'{name} {_shape(read, name)}' for name in names)}: name one of these."
        ),
      )
      return {name: read(name) for name in [*wanted, *(n for n in optional if n in names)]}
  except (InputError, MemoryError):
    raise
  except Exception as error:  # the libraries raise many types on damaged files
    raise InputError(
      f"{file} cannot be read as {file.suffix} ({type(error).__name__}: {error}); make it again."
    ) from error


def _shape(read, name):
  try:
    return read(name).shape
  except InputError:
    return "(no array)"


@contextlib.contextmanager
def _open_npz(file: pathlib.Path) -> Iterator[_Reader]:
  with np.load(file, allow_pickle=False) as archive:
    yield archive.files, archive.__getitem__


@contextlib.contextmanager
def _open_mat(file: pathlib.Path) -> Iterator[_Reader]:
  import h5py
  import scipy.io
  import scipy.sparse

  if h5py.is_hdf5(file):
    with h5py.File(file) as archive:
      names = [name for name in archive if not name.startswith("#")]  # MATLAB's own groups
      yield names, lambda name: _read_hdf5(file, archive, name)
    return

  def read(name: str) -> np.ndarray:
    values = scipy.io.loadmat(file, variable_names=[name])[name]
    return values.toarray() if scipy.sparse.issparse(values) else values

  yield [name for name, _, _ in scipy.io.whosmat(file)], read


def _read_hdf5(file, archive, name):
  """One variable of a MATLAB 7.3 file; the order of its dimensions is the reverse of ours."""
  import h5py
  import scipy.sparse

  item = archive[name]
  if isinstance(item, h5py.Group):
    require(
      "MATLAB_sparse" in item.attrs,
      f"{file}: {name} is a structure, not an array; save its field as an array of its own.",
    )
    start = item["jc"][()]
    if "ir" not in item:  # all zero
      return np.zeros((int(item.attrs["MATLAB_sparse"]), len(start) - 1))
    shape = (int(item.attrs["MATLAB_sparse"]), len(start) - 1)
    return scipy.sparse.csc_array((item["data"][()], item["ir"][()], start), shape).toarray()
  if h5py.check_ref_dtype(item.dtype):  # a cell array of strings
    characters = [archive[reference][()] for reference in item[()].T.reshape(-1)]
    return np.array(["".join(map(chr, text.reshape(-1))) for text in characters])
  return item[()].T


def _read(config: Any, progress: Any, *, default_file: str = "") -> Source:
  del progress  # one file, read at once
  fields = {field: getattr(config, field) for field in _ARRAYS}
  return read_features(config.path, **fields, default_file=default_file)


_ARRAYS = {
  "image": "image",
  "text": "text",
  "label": "label",
  "image_test": "",
  "text_test": "",
  "label_test": "",
  "labels_used": "unknown (features given)",
}
_WIKIPEDIA_ARRAYS = {
  **{field: f"{field}_train" for field in ("image", "text", "label")},
  **{f"{field}_test": f"{field}_test" for field in ("image", "text", "label")},
  "labels_used": "none (SIFT histograms)",
}
FEATURES = Reader(_read, {"path": "", **_ARRAYS})
WIKIPEDIA = Reader(
  functools.partial(_read, default_file="wikipedia.npz"),
  {"num_queries": 693, "num_validation": 217, "path": "", **_WIKIPEDIA_ARRAYS},
)
