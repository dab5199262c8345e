"""Codes with names in one file, and their neighbours."""

from udh_jax.retrieval.index.file import MAGIC, IndexWriter, StoredIndex, file_version
from udh_jax.retrieval.index.hamming_index import ENGINES, HammingIndex, Hits
from udh_jax.retrieval.index.names import Names
from udh_jax.retrieval.index.searchable import Searchable

__all__ = [
  "ENGINES",
  "MAGIC",
  "HammingIndex",
  "Hits",
  "IndexWriter",
  "Names",
  "Searchable",
  "StoredIndex",
  "file_version",
]
