"""Codes with a name each, and their neighbours."""

import functools
import importlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from udh_jax.coding.binary import padding_is_set, require_packed
from udh_jax.cpu import choice
from udh_jax.errors import InputError, require, require_outside, whole_number
from udh_jax.records import encoder_digest_of
from udh_jax.retrieval.asymmetric import AsymmetricNeighbours, asymmetric_search
from udh_jax.retrieval.hamming import Neighbours, radius_search, search
from udh_jax.retrieval.index.faiss_index import faiss_index
from udh_jax.retrieval.index.file import (
  VERSION,
  Batch,
  IndexWriter,
  StoredIndex,
  file_version,
  fitting_columns,
  read_version,
  write_index,
)
from udh_jax.retrieval.index.names import Names, require_names
from udh_jax.retrieval.index.version1 import read_version_1
from udh_jax.sharding import split_rows

ENGINES = ("auto", "jax", "faiss")


class Hits(NamedTuple):
  """Neighbours of one query, nearest first, or most similar first, ties by index.

  Attributes:
    distances: int32 array of shape ``[m]``.
    indices: int64 array of shape ``[m]``.
  """

  distances: np.ndarray
  indices: np.ndarray


class HammingIndex:
  """Packed codes with a name each, searched exactly.

  An index never changes: `add`, `update` and `remove` make another. One that was loaded reads its
  file where it is needed, and `save` to that file writes what has changed.

  Attributes:
    num_bits: Length of the codes.
    about: What else is known, JSON values by name; kept in the file. ``about["encoder"]["digest"]``
      tells which encoder made the codes.
  """

  def __init__(
    self,
    codes: np.ndarray,
    names: Sequence[str],
    *,
    num_bits: int | None = None,
    about: Mapping[str, Any] | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
  ):
    """Builds an index.

    Args:
      codes: Packed, from `pack_codes`. uint8 array of shape ``[n, bytes]``; n may be 0.
      names: n strings; they need not differ.
      num_bits: Length of the codes; 8 * bytes by default.
      about: JSON values by name; NumPy's scalars and arrays become numbers and lists.
      columns: What else each item has, by name: arrays of numbers of shape ``[n, ...]``.

    Raises:
      InputError: If codes, names and columns do not fit together, padding bits are set, or
        ``about`` is nothing that JSON can hold.
    """
    codes = np.ascontiguousarray(codes)
    require_packed("HammingIndex: codes", codes)
    codes = _own(codes)
    num_bits = 8 * codes.shape[1] if num_bits is None else num_bits
    num_bits = whole_number("HammingIndex: num_bits", num_bits)
    require(
      num_bits >= 1 and codes.shape[1] == -(-num_bits // 8),
      f"HammingIndex: codes have shape {codes.shape}, {num_bits} bits need "
      f"[n, {-(-num_bits // 8)}].",
    )
    _require_no_padding(codes, num_bits)
    self.num_bits = num_bits
    self.about = _plain({} if about is None else about)
    self.__dict__["names"] = require_names(names, len(codes))
    self.__dict__["codes"] = codes
    self.__dict__["columns"] = _checked_columns({} if columns is None else columns, len(codes))
    # The file's state, and where in it each item is; None where that is its live rows. They are
    # read and replaced together, for another thread may save in between.
    self._place: _Place = (None, None)

  @classmethod
  def _of(cls, stored: StoredIndex) -> "HammingIndex":
    self = cls.__new__(cls)
    self.num_bits, self.about = stored.num_bits, _plain(stored.about)
    self._place = stored, None
    return self

  def _derived(self, codes, names, columns, place: "_Place") -> "HammingIndex":
    """Another index; rows of ``place`` are those of the file, -1 for items that it lacks.

    Codes and columns are new arrays, which nobody else has.
    """
    for array in (codes, *columns.values()):
      array.flags.writeable = False
    other = HammingIndex(codes, names, num_bits=self.num_bits, about=self.about, columns=columns)
    other._place = place
    return other

  def __reduce__(self):
    """A copy, also in another process, belongs to no file."""
    return _copied, (self.codes, self.names, self.num_bits, self.about, dict(self.columns))

  @property
  def _file(self) -> StoredIndex:
    """The state of the file of an index that has one."""
    stored, _ = self._place
    assert stored is not None
    return stored

  @functools.cached_property
  def codes(self) -> np.ndarray:
    """uint8 array of shape ``[n, ceil(num_bits / 8)]``, read-only."""
    return self._file.array("codes")

  @functools.cached_property
  def names(self) -> Names:
    """Name of each item: a sequence of n strings, which are made when they are asked for."""
    return self._file.names()

  @functools.cached_property
  def columns(self) -> Mapping[str, np.ndarray]:
    """What else each item has, by name: read-only arrays of shape ``[n, ...]``."""
    return _StoredColumns(self._file)

  @property
  def encoder_digest(self) -> str | None:
    """Of the encoder that made the codes, where that is known."""
    return encoder_digest_of(self.about)

  def __len__(self) -> int:
    return len(self.codes) if "codes" in self.__dict__ else len(self._file)

  def find(self, names: Iterable[str]) -> np.ndarray:
    """Where names are: int64 array of the first item of each, -1 for those that are not there."""
    return self.names.find([names] if isinstance(names, str) else names)

  def add(
    self,
    codes: np.ndarray,
    names: Sequence[str],
    *,
    columns: Mapping[str, np.ndarray] | None = None,
    encoder: str | None = None,
  ) -> "HammingIndex":
    """An index that also holds ``codes``, after those that are there.

    Args:
      codes: uint8 array of shape ``[m, bytes]``.
      names: m strings.
      columns: The same columns as the index has. They take its dtypes, each of which has to hold
        all numbers of the dtype that is given.
      encoder: Digest of the encoder that made the codes.

    Raises:
      InputError: If the codes have another width or encoder, or do not fit names and columns, or a
        column is of a dtype that the index's cannot hold.
    """
    more = HammingIndex(
      self._same_width(codes), names, num_bits=self.num_bits, columns=columns or {}
    )
    self._require_encoder(encoder)
    added = fitting_columns(more.columns, self.columns, "the index")
    stored, rows = _with_rows(self._place)
    if rows is not None:
      rows = np.concatenate([rows, np.full(len(more), -1)])
    return self._derived(
      np.concatenate([self.codes, more.codes]),
      Names.joined([self.names, more.names]),
      {name: np.concatenate([a, added[name]]) for name, a in self.columns.items()},
      (stored, rows),
    )

  def remove(self, names: Iterable[str]) -> "HammingIndex":
    """An index without the items of these names, the others in their order.

    Raises:
      InputError: If there is no item of a name.
    """
    names = Names.of([names] if isinstance(names, str) else names)
    missing = np.flatnonzero(self.names.find(names) < 0)
    require(
      not len(missing),
      lambda: (
        f"HammingIndex.remove: there is no item {names[missing[0]]!r} ({len(missing)} of "
        f"{len(names)} names are not there)."
      ),
    )
    return self._take(np.flatnonzero(names.find(self.names) < 0)) if len(names) else self

  def update(
    self,
    codes: np.ndarray,
    names: Sequence[str],
    *,
    columns: Mapping[str, np.ndarray] | None = None,
    encoder: str | None = None,
  ) -> "HammingIndex":
    """An index in which these items stand in place of those of the same names.

    Items come after those that stay, as with `add`, whether their names were there or not.

    Args:
      codes: uint8 array of shape ``[m, bytes]``.
      names: m strings that differ.
      columns: As of `add`.
      encoder: Digest of the encoder that made the codes.

    Raises:
      InputError: As `add`; or if a name is given twice.
    """
    names = Names.of(names)
    twice = np.flatnonzero(names.find(names) != np.arange(len(names)))
    require(
      not len(twice), lambda: f"HammingIndex.update: the name {names[twice[0]]!r} is given twice."
    )
    stay = np.flatnonzero(names.find(self.names) < 0)
    kept = self if len(stay) == len(self) else self._take(stay)
    return kept.add(codes, names, columns=columns, encoder=encoder)

  def _take(self, rows) -> "HammingIndex":
    stored, stored_rows = _with_rows(self._place)
    return self._derived(
      self.codes[rows],
      self.names.take(rows),
      {name: column[rows] for name, column in self.columns.items()},
      (stored, None if stored_rows is None else stored_rows[rows]),
    )

  def _require_encoder(self, digest) -> None:
    own = self.encoder_digest
    if digest is not None and own is not None and digest != own:
      raise InputError(
        f"HammingIndex: codes of encoder {digest[:12]} are given to an index of encoder "
        f"{own[:12]}, and distances between the two mean nothing; encode all pictures with one of "
        "them (udh-jax encode without --update)."
      )

  def search(
    self, queries: np.ndarray, k: int, *, engine: str = "auto", mesh: Mesh | None = None
  ) -> Neighbours:
    """The k nearest items of each query: exact, ties by index.

    Args:
      queries: Packed codes. uint8 array of shape ``[q, bytes]``.
      k: Number of neighbours, 1 to the number of items.
      engine: "jax" (`udh_jax.search`, with its kernels for CPUs where numba is installed), "faiss",
        or "auto": FAISS on a CPU that has it and lacks numba. All give the same.
      mesh: Devices with one axis to split the items over, with JAX; each finds its own k nearest,
        which are then merged.

    Returns:
      Distances and indices, int32 ``[q, k]``.

    Raises:
      InputError: If the widths differ, a dtype is wrong, the index is empty or k is too large.
    """
    queries = self._same_width(queries)
    require(len(self) >= 1, "HammingIndex.search: the index is empty; add codes first.")
    k = whole_number("HammingIndex.search: k", k)
    require(
      1 <= k <= len(self),
      f"HammingIndex.search: k is {k}, expected 1 to {len(self)}, the number of items.",
    )
    if self._engine(engine, mesh) == "faiss":
      return self._search_with_faiss(queries, k)
    if mesh is None:
      found = search(queries, self._searched, k)
    else:
      found = _mapped_search(mesh, k)(queries, *self._on_mesh(mesh))
    return Neighbours(*map(np.asarray, found))

  def asymmetric_search(self, outputs: np.ndarray, k: int) -> AsymmetricNeighbours:
    """The k items most similar to each query by its outputs: exact, ties by index.

    Args:
      outputs: Of the encoder, before binarisation (``encoder.outputs``). Float array of
        shape ``[q, num_bits]``.
      k: Number of neighbours, 1 to the number of items.

    Returns:
      Similarities float32 and indices int32, ``[q, k]``, see `udh_jax.retrieval.asymmetric_search`.

    Raises:
      InputError: As there, or if the index is empty.
    """
    outputs = np.asarray(outputs)
    require(len(self) >= 1, "HammingIndex.asymmetric_search: the index is empty; add codes first.")
    require(
      outputs.ndim == 2 and outputs.shape[1] == self.num_bits,
      f"HammingIndex.asymmetric_search: outputs have shape {outputs.shape}, expected "
      f"[q, {self.num_bits}], a number for each bit.",
    )
    return AsymmetricNeighbours(*map(np.asarray, asymmetric_search(outputs, self._searched, k)))

  def radius_search(self, queries: np.ndarray, radius: int) -> list[Hits]:
    """All items within a Hamming radius of each query, nearest first, ties by index.

    Args:
      queries: Packed codes. uint8 array of shape ``[q, bytes]``.
      radius: Largest distance, at least 0.

    Returns:
      The `Hits` of each query.

    Raises:
      InputError: If the widths differ, a dtype is wrong or the radius is negative.
    """
    queries = self._same_width(queries)
    radius = whole_number("HammingIndex.radius_search: radius", radius)
    require(radius >= 0, f"HammingIndex.radius_search: radius is {radius}, expected 0 or more.")
    found = radius_search(queries, self._searched, radius)
    ends = found.starts[1:-1]
    distances, indices = np.split(found.distances, ends), np.split(found.indices, ends)
    return [Hits(d, i.astype(np.int64)) for d, i in zip(distances, indices, strict=True)][
      : len(queries)
    ]

  def save(self, path: str | os.PathLike) -> None:
    """Writes the index to one file; see docs/index_format.md.

    Where the file is the one that this index was loaded from or saved to, and nobody has changed it
    since, what is new is appended. Otherwise it is written anew. Either way it is done whole or not
    at all.

    Raises:
      InputError: If the file cannot be written, or another process writes to it.
    """
    path = pathlib.Path(path)
    require(path.name, f"HammingIndex.save: {os.fspath(path)!r} names no file; give one.")
    stored = self._append_to(path)
    if stored is None:
      whole = Batch(self.codes, self.names, dict(self.columns))
      stored = write_index(
        path, whole, whole, num_items=len(self), num_bits=self.num_bits, about=self.about
      )
    self._place = stored, None

  def _append_to(self, path) -> StoredIndex | None:
    """Appends what the file lacks, where that is less than writing it anew; its state then."""
    stored, rows = _with_rows(self._place)
    if stored is None or rows is None or not path.is_file():
      return None
    try:
      same = read_version(path) == VERSION and file_version(path) == stored.version
    except InputError:  # another file, or a damaged one
      return None
    if not same:
      return None
    kept = int((rows >= 0).sum())
    in_place = (rows[:kept] >= 0).all() and (np.diff(rows[:kept]) > 0).all()
    if not in_place or 2 * kept < stored.num_rows or 2 * kept < len(rows):
      return None
    gone = np.setdiff1d(stored.live_rows(), rows[:kept], assume_unique=True)
    new = Batch(
      self.codes[kept:], self.names[kept:], {n: c[kept:] for n, c in self.columns.items()}
    )
    with IndexWriter(path) as writer:
      if writer.stored.version != stored.version:
        return None
      if len(gone) or len(new.codes) or self.about != stored.about:
        writer.append(new, removed=gone, about=self.about)
        if writer.stored.wasted():
          writer.compact()
      return writer.stored

  @classmethod
  def load(cls, path: str | os.PathLike) -> "HammingIndex":
    """Opens what `save` wrote.

    The file is mapped into memory, and its bytes are checked when they are first used: opening ten
    million codes takes milliseconds. What other processes write to it later is not seen.

    Raises:
      InputError: If there is no such file, it is not an index, of another version, cut short or
        altered; altered codes and names are noticed at their first use.
    """
    path = pathlib.Path(path)
    version = read_version(path)
    require(
      version in (1, VERSION),
      f"{path} has version {version} of the index format, this program reads 1 and {VERSION}; use "
      "the version of udh_jax that wrote it, or make it again.",
    )
    try:
      if version == VERSION:
        return cls._of(StoredIndex.open(path))
      found = read_version_1(path)
    except OSError as error:
      raise _unreadable(path, error) from error
    return cls(found.codes, found.names, num_bits=found.num_bits, about=found.about)

  def to_faiss(self, kind: str = "flat", **options: int) -> Any:
    """The same codes as a FAISS binary index, to use or to write with faiss.write_index_binary.

    Only "flat" is exact. Codes whose length is not a
    multiple of 8 keep their padding bits, which never count.

    Args:
      kind: "flat"; "ivf" (cells around ``num_cells`` centres, of which ``num_probes`` are read);
        "hnsw" (a graph of ``degree`` links, walked with ``effort`` candidates); "multi_hash"
        (``num_tables`` tables of ``key_bits`` bits, with keys of up to ``flips`` other bits read).
      **options: Those named with the kind.

    Returns:
      A trained and filled ``faiss.IndexBinary``.

    Raises:
      InputError: If FAISS is not installed, the kind or an option is unknown or out of range, or
        the index is empty.
    """
    return faiss_index(self.codes, kind, options)

  def _same_width(self, codes) -> np.ndarray:
    require_outside("HammingIndex", codes)
    codes = np.ascontiguousarray(codes)
    require_packed("HammingIndex: codes", codes)
    require(
      codes.shape[1] == self.codes.shape[1],
      f"HammingIndex: codes of shape {codes.shape} given to an index of {self.num_bits} bits, "
      f"[{len(self)}, {self.codes.shape[1]}]; the codes differ in width.",
    )
    _require_no_padding(codes, self.num_bits)
    return codes

  def _engine(self, engine: str, mesh: Mesh | None) -> str:
    require(
      engine in ENGINES,
      f"HammingIndex.search: engine {engine!r} is unknown; choose one of {', '.join(ENGINES)}.",
    )
    require(
      engine != "faiss" or mesh is None,
      "HammingIndex.search: FAISS searches on the CPU; give no mesh, or engine 'jax'.",
    )
    if engine != "auto":
      return engine
    on_cpu = mesh is None and jax.default_backend() == "cpu"
    slow = on_cpu and not choice.use_numba(self.codes)
    return "faiss" if slow and _has_faiss() else "jax"

  # An index never changes, so that what was made of its codes serves as long as it lives.
  @functools.cached_property
  def _flat(self):
    return self.to_faiss("flat")

  @functools.cached_property
  def _searched(self) -> jax.Array | np.ndarray:
    """The codes where they are searched: in place on a CPU, on an accelerator once sent there."""
    return self.codes if choice.use_numba(self.codes) else self._sent

  @functools.cached_property
  def _sent(self) -> jax.Array:
    return jax.device_put(self.codes)

  def _on_mesh(self, mesh: Mesh) -> tuple[jax.Array, jax.Array]:
    """The codes and which rows are not padding, split over the devices."""
    placed = self.__dict__.setdefault("_placed", {})
    if mesh not in placed:
      arrays = (self.codes, np.ones(len(self), bool))
      placed[mesh] = tuple(split_rows(mesh, array) for array in arrays)
    return placed[mesh]

  def _search_with_faiss(self, queries: np.ndarray, k: int) -> Neighbours:
    if not len(queries):
      return Neighbours(*np.zeros((2, 0, k), np.int32))
    distances, indices = self._flat.search(queries, k)
    steps = np.diff(distances, axis=1)
    if not ((steps > 0) | ((steps == 0) & (np.diff(indices, axis=1) > 0))).all():
      order = np.lexsort((indices, distances))
      distances, indices = (np.take_along_axis(a, order, axis=1) for a in (distances, indices))
    return Neighbours(distances, indices.astype(np.int32))


_Place = tuple[StoredIndex | None, np.ndarray | None]  # a file's state, and rows in it


def _with_rows(place: _Place) -> _Place:
  """The same, with the rows of a file that are live where none are named."""
  stored, rows = place
  return stored, stored.live_rows() if stored is not None and rows is None else rows


def _require_no_padding(codes: np.ndarray, num_bits: int) -> None:
  require(
    not padding_is_set(codes, num_bits),
    f"HammingIndex: padding bits after bit {num_bits} are set; give codes from pack_codes or "
    "another num_bits.",
  )


class _StoredColumns(Mapping):
  """Columns of a file, read when they are asked for."""

  def __init__(self, stored: StoredIndex):
    self._stored = stored
    self._read: dict[str, np.ndarray] = {}

  def __getitem__(self, name):
    if name not in self._stored.columns:
      raise KeyError(name)
    if name not in self._read:
      self._read[name] = self._stored.array(name)
    return self._read[name]

  def __iter__(self):
    return iter(self._stored.columns)

  def __len__(self):
    return len(self._stored.columns)


def _copied(codes, names, num_bits, about, columns) -> HammingIndex:
  """The index that `HammingIndex.__reduce__` took apart."""
  return HammingIndex(codes, names, num_bits=num_bits, about=about, columns=columns)


def _own(array: np.ndarray) -> np.ndarray:
  """The array, read-only; a copy where somebody could write to it."""
  part: Any = array
  while isinstance(part, np.ndarray):
    if part.flags.writeable:
      array = array.copy()
      array.flags.writeable = False
      break
    part = part.base
  return array


def _checked_columns(columns, num_items) -> dict[str, np.ndarray]:
  arrays = {name: np.ascontiguousarray(column) for name, column in columns.items()}
  for name, array in arrays.items():
    require(
      isinstance(name, str) and name not in ("codes", "names", "name_ends", "removed"),
      f"HammingIndex: a column cannot be called {name!r}; give another name.",
    )
    require(
      array.dtype.kind in "iufb" and array.dtype.itemsize <= 8 and array.shape[:1] == (num_items,),
      f"HammingIndex: column {name} is {array.dtype} of shape {array.shape}, expected numbers "
      f"[{num_items}, ...].",
    )
  return {name: _own(array) for name, array in arrays.items()}


def _plain(about) -> dict[str, Any]:
  """What JSON makes of it, so that it is the same before and after a file."""

  def number(value):
    if isinstance(value, np.generic | np.ndarray | jax.Array):
      return np.asarray(value).tolist()
    if isinstance(value, os.PathLike):
      return os.fspath(value)
    raise TypeError(f"{value!r} is a {type(value).__name__}")

  try:
    return json.loads(json.dumps(dict(about), default=number, allow_nan=False))
  except (TypeError, ValueError) as error:
    raise InputError(
      f"HammingIndex: about cannot be kept as JSON ({error}); give texts, finite numbers, lists "
      "and dictionaries."
    ) from error


def _unreadable(path, error: OSError) -> InputError:
  return InputError(
    f"The index {path} cannot be read ({error.strerror}); make one with udh-jax encode."
  )


@functools.lru_cache(maxsize=16)
def _mapped_search(mesh: Mesh, k: int):
  (axis,) = mesh.axis_names

  def run(queries, codes, valid):
    return search(queries, codes, k, valid=valid, axis_name=axis)

  return jax.jit(
    jax.shard_map(
      run,
      mesh=mesh,
      in_specs=(PartitionSpec(), PartitionSpec(axis), PartitionSpec(axis)),
      out_specs=PartitionSpec(),
      check_vma=False,  # what was gathered is the same everywhere, which the types do not say
    )
  )


@functools.cache
def _has_faiss() -> bool:
  """Whether FAISS can be imported; where it cannot, JAX gives the same."""
  try:
    importlib.import_module("faiss")
  except (ImportError, OSError):
    return False
  return True
