"""Codes with names in one file, and their neighbours."""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from udh_jax.coding.binary import require_packed
from udh_jax.errors import InputError, require
from udh_jax.files import write_atomically
from udh_jax.retrieval.hamming import Neighbours, hamming_distance, search
from udh_jax.sharding import split_rows

MAGIC = b"UDHINDEX"
VERSION = 1
_PREFIX = struct.Struct("<8sIQ32s")  # magic, version, length of the header, its SHA-256

ENGINES = ("auto", "jax", "faiss")


class Hits(NamedTuple):
  """What lies within a radius of one query, nearest first, ties by index.

  Attributes:
    distances: int32 array of shape ``[m]``.
    indices: int64 array of shape ``[m]``.
  """

  distances: np.ndarray
  indices: np.ndarray


class HammingIndex:
  """Packed codes with a name each, searched exactly.

  An index never changes: `add` makes another.

  Attributes:
    codes: uint8 array of shape ``[n, ceil(num_bits / 8)]``, read-only.
    names: Name of each item, n strings.
    num_bits: Length of the codes.
    about: What else is known, JSON values by name; kept in the file.
  """

  def __init__(
    self,
    codes: np.ndarray,
    names: Sequence[str],
    *,
    num_bits: int | None = None,
    about: Mapping[str, Any] | None = None,
  ):
    """Builds an index.

    Args:
      codes: Packed, from `pack_codes`. uint8 array of shape ``[n, bytes]``; n may be 0.
      names: n strings; they need not differ.
      num_bits: Length of the codes; 8 * bytes by default.
      about: JSON values by name.

    Raises:
      InputError: If codes and names do not fit together, or padding bits are set.
    """
    codes = np.ascontiguousarray(codes)
    require_packed("HammingIndex: codes", codes)
    num_bits = 8 * codes.shape[1] if num_bits is None else num_bits
    require(
      num_bits >= 1 and codes.shape[1] == -(-num_bits // 8),
      f"HammingIndex: codes have shape {codes.shape}, {num_bits} bits need "
      f"[n, {-(-num_bits // 8)}].",
    )
    padding = -num_bits % 8
    require(
      padding == 0 or not (codes[:, -1] & ((1 << padding) - 1)).any(),
      f"HammingIndex: padding bits after bit {num_bits} are set; give codes from pack_codes or "
      "another num_bits.",
    )
    names = list(names)
    require(
      len(names) == len(codes),
      f"HammingIndex: {len(codes)} codes and {len(names)} names; give one name for each code.",
    )
    wrong = next((name for name in names if not isinstance(name, str)), None)
    require(wrong is None, lambda: f"HammingIndex: name {wrong!r} is not a string.")
    self.codes = codes.view()
    self.codes.flags.writeable = False
    self.names = names
    self.num_bits = num_bits
    self.about = dict(about or {})

  def __len__(self) -> int:
    return len(self.codes)

  def add(self, codes: np.ndarray, names: Sequence[str]) -> "HammingIndex":
    """An index that also holds ``codes``, after those that are there.

    Raises:
      InputError: If the codes have another width, or do not fit the names.
    """
    more = HammingIndex(self._same_width(codes), names, num_bits=self.num_bits)
    return HammingIndex(
      np.concatenate([self.codes, more.codes]),
      self.names + more.names,
      num_bits=self.num_bits,
      about=self.about,
    )

  def search(
    self, queries: np.ndarray, k: int, *, engine: str = "auto", mesh: Mesh | None = None
  ) -> Neighbours:
    """The k nearest items of each query: exact, ties by index.

    Args:
      queries: Packed codes. uint8 array of shape ``[q, bytes]``.
      k: Number of neighbours, 1 to the number of items.
      engine: "jax", "faiss", or "auto": FAISS on a CPU where it is installed, JAX elsewhere. Both
        give the same.
      mesh: Devices with one axis to split the items over, with JAX; each finds its own k nearest,
        which are then merged.

    Returns:
      Distances and indices, int32 ``[q, k]``.

    Raises:
      InputError: If the widths differ, a dtype is wrong, the index is empty or k is too large.
    """
    queries = self._same_width(queries)
    require(len(self) >= 1, "HammingIndex.search: the index is empty; add codes first.")
    require(
      1 <= k <= len(self),
      f"HammingIndex.search: k is {k}, expected 1 to {len(self)}, the number of items.",
    )
    if self._engine(engine, mesh) == "faiss":
      return self._search_with_faiss(queries, k)
    if mesh is None:
      return Neighbours(*map(np.asarray, search(queries, self.codes, k)))
    return _sharded_search(queries, self.codes, k, mesh)

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
    require(radius >= 0, f"HammingIndex.radius_search: radius is {radius}, expected 0 or more.")
    codes, found = jax.device_put(self.codes), []
    for query in queries:
      distances = np.asarray(hamming_distance(query[None], codes)[0])
      indices = np.flatnonzero(distances <= radius)
      order = np.argsort(distances[indices], kind="stable")
      found.append(Hits(distances[indices][order], indices[order]))
    return found

  def save(self, path: str | os.PathLike) -> None:
    """Writes the index to one file, whole or not at all; see docs/index_format.md.

    Raises:
      InputError: If the file cannot be written.
    """
    texts = [name.encode("utf-8", "surrogateescape") for name in self.names]
    ends = np.cumsum([len(text) for text in texts], dtype="<u8")
    parts = {"codes": self.codes.tobytes(), "name_ends": ends.tobytes(), "names": b"".join(texts)}
    header = {
      "num_items": len(self),
      "num_bits": self.num_bits,
      "about": self.about,
      "parts": [
        {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in parts.items()
      ],
    }
    text = json.dumps(header).encode()

    def write(file):
      file.write(_PREFIX.pack(MAGIC, VERSION, len(text), hashlib.sha256(text).digest()))
      file.write(text)
      for data in parts.values():
        file.write(data)

    try:
      write_atomically(path, write)
    except OSError as error:
      raise InputError(
        f"The index {os.fspath(path)} cannot be written ({error.strerror}); give another path."
      ) from error

  @classmethod
  def load(cls, path: str | os.PathLike) -> "HammingIndex":
    """Reads what `save` wrote.

    Raises:
      InputError: If there is no such file, it is no index, of another version, cut short or
        altered.
    """
    path = pathlib.Path(path)
    try:
      data = path.read_bytes()
    except OSError as error:
      raise InputError(
        f"The index {path} cannot be read ({error.strerror}); make one with python -m "
        "udh_jax.encode."
      ) from error
    remedy = "; make it again, or fetch it again."
    require(data.startswith(MAGIC), f"{path} is no index of udh_jax{remedy}")
    require(len(data) >= _PREFIX.size, f"{path} is cut short{remedy}")
    _, version, length, digest = _PREFIX.unpack_from(data)
    require(
      version == VERSION,
      f"{path} has version {version} of the index format, this program reads {VERSION}; use the "
      "version of udh_jax that wrote it, or make it again.",
    )
    start = _PREFIX.size + length
    text = data[_PREFIX.size : start]
    require(hashlib.sha256(text).digest() == digest, f"The header of {path} is damaged{remedy}")
    header = json.loads(text)
    parts = {}
    for part in header["parts"]:
      found = memoryview(data)[start : start + part["bytes"]]
      require(
        hashlib.sha256(found).hexdigest() == part["sha256"],
        f"{path} is damaged: its {part['name']} do not match their checksum{remedy}",
      )
      parts[part["name"]] = found
      start += part["bytes"]
    require(start == len(data), f"{path} holds {len(data) - start} bytes too many{remedy}")
    num_bytes = -(-header["num_bits"] // 8)
    codes = np.frombuffer(parts["codes"], np.uint8).reshape(header["num_items"], num_bytes)
    ends = np.frombuffer(parts["name_ends"], "<u8").tolist()
    names = bytes(parts["names"])
    return cls(
      codes,
      [
        names[a:b].decode("utf-8", "surrogateescape")
        for a, b in zip([0, *ends][:-1], ends, strict=True)
      ],
      num_bits=header["num_bits"],
      about=header["about"],
    )

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
      InputError: If FAISS is not installed, the kind or an option is unknown, or the index is
        empty.
    """
    faiss = _faiss()
    require(len(self) >= 1, "HammingIndex.to_faiss: the index is empty; add codes first.")
    require(
      kind in _FAISS_OPTIONS,
      f"HammingIndex.to_faiss: kind {kind!r} is unknown; choose one of "
      f"{', '.join(_FAISS_OPTIONS)}.",
    )
    unknown = sorted(options.keys() - _FAISS_OPTIONS[kind].keys())
    require(
      not unknown,
      f"HammingIndex.to_faiss: {kind} has no option {', '.join(unknown)}; it has "
      f"{', '.join(_FAISS_OPTIONS[kind]) or 'none'}.",
    )
    options = _FAISS_OPTIONS[kind] | options
    width = 8 * self.codes.shape[1]
    if kind == "flat":
      index = faiss.IndexBinaryFlat(width)
    elif kind == "ivf":
      cells = options["num_cells"] or max(1, min(int(4 * len(self) ** 0.5), len(self) // 39))
      quantizer = faiss.IndexBinaryFlat(width)
      index = faiss.IndexBinaryIVF(quantizer, width, cells)
      quantizer.this.disown()  # the index keeps and frees it
      index.own_fields = True
      index.nprobe = min(options["num_probes"], cells)
      index.train(self.codes)
    elif kind == "hnsw":
      index = faiss.IndexBinaryHNSW(width, options["degree"])
      index.hnsw.efSearch = options["effort"]
    else:
      key_bits = options["key_bits"] or min(16, width // options["num_tables"])
      index = faiss.IndexBinaryMultiHash(width, options["num_tables"], key_bits)
      index.nflip = options["flips"]
    index.add(self.codes)
    return index

  def _same_width(self, codes) -> np.ndarray:
    codes = np.ascontiguousarray(codes)
    require_packed("HammingIndex: codes", codes)
    require(
      codes.shape[1] == self.codes.shape[1],
      f"HammingIndex: codes of shape {codes.shape} given to an index of {self.num_bits} bits, "
      f"[{len(self)}, {self.codes.shape[1]}]; the codes differ in width.",
    )
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
    return "faiss" if on_cpu and importlib.util.find_spec("faiss") else "jax"

  @functools.cached_property
  def _flat(self):
    return self.to_faiss("flat")

  def _search_with_faiss(self, queries: np.ndarray, k: int) -> Neighbours:
    if not len(queries):
      return Neighbours(*np.zeros((2, 0, k), np.int32))
    distances, indices = self._flat.search(queries, k)
    steps = np.diff(distances, axis=1)
    if not ((steps > 0) | ((steps == 0) & (np.diff(indices, axis=1) > 0))).all():
      order = np.lexsort((indices, distances))
      distances, indices = (np.take_along_axis(a, order, axis=1) for a in (distances, indices))
    return Neighbours(distances, indices.astype(np.int32))


# Options of each kind with their usual values; 0 cells follow the number of items, 0 bits of a key
# the length of the codes.
_FAISS_OPTIONS = {
  "flat": {},
  "ivf": {"num_cells": 0, "num_probes": 16},
  "hnsw": {"degree": 32, "effort": 128},
  "multi_hash": {"num_tables": 4, "key_bits": 0, "flips": 1},
}


def _faiss() -> Any:
  try:
    import faiss
  except ImportError:
    raise InputError("FAISS is not installed; run pip install faiss-cpu.") from None
  return faiss


def _sharded_search(queries: np.ndarray, codes: np.ndarray, k: int, mesh: Mesh) -> Neighbours:
  placed = (split_rows(mesh, array) for array in (codes, np.ones(len(codes), bool)))
  return Neighbours(*map(np.asarray, _mapped_search(mesh, k)(queries, *placed)))


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
