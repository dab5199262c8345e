"""Codes from an index into a store and back."""

from collections.abc import Iterator

import numpy as np

from udh_jax.errors import require
from udh_jax.retrieval.index import HammingIndex
from udh_jax.stores.interface import FILE_COLUMNS, Rows, Store, require_same_encoder

_OF_INDEX = dict(zip(FILE_COLUMNS, ("size", "mtime"), strict=True))  # what an index calls them
BATCH = 50_000  # items held at once


def file_columns_of(index: HammingIndex) -> dict[str, str]:
  """Columns of a store, with their types, that an index fills: `FILE_COLUMNS` or none."""
  for name in _OF_INDEX.values():
    values = index.columns.get(name)
    if values is None or values.ndim != 1 or values.dtype.kind not in "iu":
      return {}
  return FILE_COLUMNS


def index_to_store(index: HammingIndex, store: Store) -> int:
  """Writes all items of an index to a store, in one transaction and in their order.

  Where both have them, sizes and times of change of the files are written too (`FILE_COLUMNS`), so
  that encoding the folder into the store goes on from there.

  Args:
    index: Its names differ from each other.
    store: Of the same encoder and length of codes.

  Returns:
    How many items were written.

  Raises:
    InputError: If the encoder or the length differs, or the store cannot hold a name.
  """
  require(
    index.num_bits == store.num_bits,
    f"The index has {index.num_bits} bits and {store.location} {store.num_bits}; make another "
    "store.",
  )
  require_same_encoder(store, index.encoder_digest)

  files = {
    column: index.columns[_OF_INDEX[column]]
    for column, kind in file_columns_of(index).items()
    if store.columns.get(column) == kind
  }

  def batches() -> Iterator[Rows]:
    for start in range(0, len(index), BATCH):
      part = slice(start, start + BATCH)
      metadata = {column: values[part].tolist() for column, values in files.items()}
      yield Rows(list(index.names[part]), index.codes[part], metadata)

  return store.load(batches())


def store_to_index(store: Store) -> HammingIndex:
  """All items of a store as an index, in the order of their places.

  Searched exactly, it finds the same as the store, with ties in the same order. Sizes and times of
  change of the files come along where they are known of every item; an index has no other metadata.
  """
  kept = [name for name, kind in FILE_COLUMNS.items() if store.columns.get(name) == kind]
  files: dict[str, list] = {name: [] for name in kept}
  names: list[str] = []
  codes = [np.zeros((0, -(-store.num_bits // 8)), np.uint8)]
  for rows in store.rows(BATCH):
    names += rows.names
    codes.append(rows.codes)
    for name, values in files.items():
      values += rows.metadata[name]
  columns = {
    _OF_INDEX[name]: np.array(values, np.int64)
    for name, values in files.items()
    if None not in values
  }
  return HammingIndex(
    np.concatenate(codes), names, num_bits=store.num_bits, about=store.about, columns=columns
  )
