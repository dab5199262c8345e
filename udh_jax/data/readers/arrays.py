"""Arrays by name in NumPy and MATLAB files: variables, fields of structures, elements of cells."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from udh_jax.errors import InputError
from udh_jax.extras import require_extra

EXTRA = "train"  # brings SciPy and h5py
_DEEPEST = 8  # structures in structures; a file may refer to itself
_MOST_NAMED = 40  # arrays that a message lists
_MOST_ELEMENTS = 1000  # of a cell array whose elements are arrays of their own


class Stored(NamedTuple):
  """An array that is read when it is asked for.

  Attributes:
    shape: Of the array, as the language that wrote it has it.
    read: Gives the array; a sparse one is written out.
  """

  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]


def listing(arrays: Mapping[str, Stored]) -> str:
  """Names and shapes, down to the fields of structures, in one line."""
  shown = [f"{name} {array.shape}" for name, array in list(arrays.items())[:_MOST_NAMED]]
  more = len(arrays) - len(shown)
  return ", ".join([*shown, *([f"and {more} more"] if more else [])]) or "nothing"


@contextlib.contextmanager
def open_arrays(file: pathlib.Path) -> Iterator[dict[str, Stored]]:
  """Opens an .npz file, or a .mat file of MATLAB version 4 to 7.3.

  Fields of structures have dotted names, such as ``data.split.ind_train``. A cell array of texts,
  or of numbers of one size, is an array with one row an element; other cell arrays have their
  elements as ``name{1}``, ``name{2}`` and so on.

  Yields:
    All arrays by name, in the file's order.

  Raises:
    InputError: If the file is damaged, here or where an array is read from it.
  """
  try:
    with (_open_npz if file.suffix.lower() == ".npz" else _open_mat)(file) as arrays:
      yield arrays
  except InputError:
    raise
  except MemoryError as error:  # most likely a size in it is damaged
    raise InputError(
      f"{file} asks for more memory than there is; make it again, or read it on a larger machine."
    ) from error
  except Exception as error:  # the libraries raise many types on damaged files
    reason = " ".join(str(error).split())[:200]  # some quote what they have read
    raise InputError(
      f"{file} cannot be read as {file.suffix} ({type(error).__name__}: {reason}); make it again."
    ) from error


@contextlib.contextmanager
def _open_npz(file: pathlib.Path) -> Iterator[dict[str, Stored]]:
  with np.load(file, allow_pickle=False) as archive:
    yield {name: _npz_array(archive, name) for name in archive.files}


def _npz_array(archive: Any, name: str) -> Stored:
  try:
    shape = archive[name].shape
  except ValueError:  # of Python objects, which are not read: an error where it is asked for
    shape = ()
  return Stored(shape, lambda: archive[name])


@contextlib.contextmanager
def _open_mat(file: pathlib.Path) -> Iterator[dict[str, Stored]]:
  h5py = require_extra("h5py", extra=EXTRA)
  scipy = require_extra("scipy.io", extra=EXTRA)
  if h5py.is_hdf5(file):
    with h5py.File(file) as archive:
      names = [name for name in archive if not name.startswith("#")]  # MATLAB's own groups
      yield _merged(_of_hdf5(archive, name, archive[name], _DEEPEST) for name in names)
    return

  def variable(name: str, shape: tuple[int, ...], kind: str) -> dict[str, Stored]:
    def value():
      return scipy.loadmat(file, variable_names=[name])[name]

    if kind in ("struct", "cell", "char"):
      return _of_value(name, value(), _DEEPEST)
    return {name: Stored(tuple(shape), lambda: _dense(value()))}

  yield _merged(variable(*found) for found in scipy.whosmat(file))


def _merged(parts) -> dict[str, Stored]:
  return {name: array for part in parts for name, array in part.items()}


def _dense(value: Any) -> np.ndarray:
  sparse = require_extra("scipy.sparse", extra=EXTRA)
  return value.toarray() if sparse.issparse(value) else np.asarray(value)


def _of_value(name: str, value: Any, deepest: int) -> dict[str, Stored]:
  """What `scipy.io.loadmat` gave for a structure, a cell array, or an array in one of them."""
  if isinstance(value, np.ndarray) and value.dtype.names and deepest:
    records = value.reshape(-1, order="F")
    return _merged(
      _elements(f"{name}.{field}", [record[field] for record in records], deepest, one=True)
      for field in value.dtype.names
    )
  if isinstance(value, np.ndarray) and value.dtype == object and deepest:
    return _elements(name, list(value.reshape(-1, order="F")), deepest)
  dense = _dense(value)
  return {name: Stored(dense.shape, lambda: dense)}


def _elements(name: str, values: list, deepest: int, *, one: bool = False) -> dict[str, Stored]:
  """The elements of a cell array, or one field of several structures (of one, its own value)."""
  if one and len(values) == 1:
    return _of_value(name, values[0], deepest - 1)
  arrays = [_dense(value) for value in values]
  if (stacked := _stacked(arrays)) is not None:
    return {name: Stored(stacked.shape, lambda: stacked)}
  return _merged(
    _of_value(f"{name}{{{number}}}", value, deepest - 1)
    for number, value in enumerate(values[:_MOST_ELEMENTS], 1)
  )


def _stacked(arrays: list[np.ndarray]) -> np.ndarray | None:
  """One row an element, where all are texts or all are rows of numbers of one size."""
  if not arrays or any(array.dtype == object or array.dtype.names for array in arrays):
    return None
  if all(array.dtype.kind in "US" for array in arrays):
    return np.array(["".join(map(str, array.reshape(-1))) for array in arrays])
  sizes = {array.size for array in arrays}
  vectors = all(array.ndim <= 2 and array.size == max(array.shape, default=1) for array in arrays)
  return np.stack([array.reshape(-1) for array in arrays]) if vectors and len(sizes) == 1 else None


def _of_hdf5(archive: Any, name: str, item: Any, deepest: int) -> dict[str, Stored]:
  """A variable of a MATLAB 7.3 file; the order of its dimensions is the reverse of ours."""
  h5py = require_extra("h5py", extra=EXTRA)
  if isinstance(item, h5py.Group):
    if "MATLAB_sparse" in item.attrs:
      shape = (int(item.attrs["MATLAB_sparse"]), len(item["jc"]) - 1)
      return {name: Stored(shape, lambda: _sparse(item, shape))}
    fields = list(item) if deepest else []
    return _merged(_of_hdf5(archive, f"{name}.{f}", item[f], deepest - 1) for f in fields)
  if h5py.check_ref_dtype(item.dtype):
    if not deepest:
      return {}
    items = [archive[reference] for reference in item[()].T.reshape(-1, order="F")]
    if all(isinstance(one, h5py.Dataset) and not h5py.check_ref_dtype(one.dtype) for one in items):
      arrays = [_hdf5_array(one) for one in items]
      if all(array.dtype == np.uint16 for array in arrays):  # texts whose class is not noted
        arrays = [_text(array) for array in arrays]
      stacked = _stacked(arrays)
      if stacked is not None:
        return {name: Stored(stacked.shape, lambda: stacked)}
    return _merged(
      _of_hdf5(archive, f"{name}{{{number}}}", one, deepest - 1)
      for number, one in enumerate(items[:_MOST_ELEMENTS], 1)
    )
  return {name: Stored(item.shape[::-1], lambda: _hdf5_array(item))}


def _hdf5_array(item: Any) -> np.ndarray:
  values = item[()].T
  if item.attrs.get("MATLAB_class") == b"char":
    return _text(values)
  return values


def _text(values: np.ndarray) -> np.ndarray:
  return np.array("".join(map(chr, values.reshape(-1))))


def _sparse(item: Any, shape: tuple[int, int]) -> np.ndarray:
  if "ir" not in item:  # all zero
    return np.zeros(shape)
  parts = (item["data"][()], item["ir"][()], item["jc"][()])
  return require_extra("scipy.sparse", extra=EXTRA).csc_array(parts, shape).toarray()
