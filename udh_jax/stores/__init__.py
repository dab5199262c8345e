"""Codes in a database: PostgreSQL with pgvector, or LanceDB."""

from udh_jax.stores.interface import (
  Condition,
  Found,
  Rows,
  Store,
  StoreError,
  parse_where,
  require_same_encoder,
)
from udh_jax.stores.locations import create_store, open_store
from udh_jax.stores.transfer import index_to_store, store_to_index

__all__ = [
  "Condition",
  "Found",
  "Rows",
  "Store",
  "StoreError",
  "create_store",
  "index_to_store",
  "open_store",
  "parse_where",
  "require_same_encoder",
  "store_to_index",
]
