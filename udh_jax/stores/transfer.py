"""Codes from an index into a store and back."""

from collections.abc import Iterator

import numpy as np

from udh_jax.errors import require
from udh_jax.retrieval.index import HammingIndex
from udh_jax.stores.interface import Rows, Store, require_same_encoder

BATCH = 50_000  # items held at once


def index_to_store(index: HammingIndex, store: Store) -> int:
  """Writes all items of an index to a store, in one transaction and in their order.

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

  def batches() -> Iterator[Rows]:
    for start in range(0, len(index), BATCH):
      part = slice(start, start + BATCH)
      yield Rows(list(index.names[part]), index.codes[part], {})

  return store.load(batches())


def store_to_index(store: Store) -> HammingIndex:
  """All items of a store as an index, in the order of their places.

  Searched exactly, it finds the same as the store, with ties in the same order. Metadata stay
  behind: an index has none.
  """
  names: list[str] = []
  codes = [np.zeros((0, -(-store.num_bits // 8)), np.uint8)]
  for rows in store.rows(BATCH):
    names += rows.names
    codes.append(rows.codes)
  return HammingIndex(np.concatenate(codes), names, num_bits=store.num_bits, about=store.about)
