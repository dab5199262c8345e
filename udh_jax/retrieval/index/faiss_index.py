"""The codes of an index as a binary index of FAISS."""

import math
from typing import Any

import numpy as np

from udh_jax.errors import require, whole_number
from udh_jax.extras import require_extra

# Options of each kind with their default values; 0 cells follow the number of items, 0 bits of a
# key the length of the codes.
_OPTIONS = {
  "flat": {},
  "ivf": {"num_cells": 0, "num_probes": 16},
  "hnsw": {"degree": 32, "effort": 128},
  "multi_hash": {"num_tables": 4, "key_bits": 0, "flips": 1},
}
_MOST_KEYS = 1 << 20  # keys of a table read for one query


def faiss_index(codes: np.ndarray, kind: str, options: dict[str, int]) -> Any:
  """A trained and filled ``faiss.IndexBinary``; see `HammingIndex.to_faiss`."""
  faiss = require_extra("faiss", extra="faiss")
  require(len(codes) >= 1, "HammingIndex.to_faiss: the index is empty; add codes first.")
  require(
    kind in _OPTIONS,
    f"HammingIndex.to_faiss: kind {kind!r} is unknown; choose one of {', '.join(_OPTIONS)}.",
  )
  unknown = sorted(options.keys() - _OPTIONS[kind].keys())
  require(
    not unknown,
    f"HammingIndex.to_faiss: {kind} has no option {', '.join(unknown)}; it has "
    f"{', '.join(_OPTIONS[kind]) or 'none'}.",
  )
  num_items, width = len(codes), 8 * codes.shape[1]
  options = {
    name: whole_number(f"HammingIndex.to_faiss: {name}", value)
    for name, value in (_OPTIONS[kind] | options).items()
  }

  # FAISS does not check them all: some end the process, others run for ever or answer at random.
  def within(name, low, high, why=""):
    value = options[name]
    require(
      low <= value <= high,
      f"HammingIndex.to_faiss: {name} is {value}, expected {low} to {high}{why}.",
    )
    return value

  if kind == "flat":
    index = faiss.IndexBinaryFlat(width)
  elif kind == "ivf":
    usual = max(1, min(int(4 * num_items**0.5), num_items // 39))
    cells = within("num_cells", 0, num_items, ", the number of items") or usual
    probes = within("num_probes", 1, 2**31 - 1)
    quantizer = faiss.IndexBinaryFlat(width)
    index = faiss.IndexBinaryIVF(quantizer, width, cells)
    quantizer.this.disown()  # the index keeps and frees it
    index.own_fields = True
    index.nprobe = min(probes, cells)
    index.train(codes)
  elif kind == "hnsw":
    degree, effort = within("degree", 2, 1024), within("effort", 1, 2**20)
    index = faiss.IndexBinaryHNSW(width, degree)
    index.hnsw.efSearch = effort
  else:
    tables = within("num_tables", 1, width, ", the length of the codes")
    most = min(63, width // tables)
    key_bits = within("key_bits", 0, most, f", of {width} bits for {tables} tables")
    key_bits = key_bits or min(16, most)
    flips = within("flips", 0, key_bits)
    keys = sum(math.comb(key_bits, i) for i in range(flips + 1))
    require(
      keys <= _MOST_KEYS,
      f"HammingIndex.to_faiss: flips is {flips}, which reads {keys:,} keys of {key_bits} bits a "
      "query; give fewer flips or bits.",
    )
    index = faiss.IndexBinaryMultiHash(width, tables, key_bits)
    index.nflip = flips
  index.add(codes)
  return index
