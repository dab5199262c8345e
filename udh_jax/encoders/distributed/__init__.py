"""Encoding on several machines: parts of a listing in, Parquet files of names and codes out."""

from udh_jax.encoders.distributed.cluster import Encoded, encode_distributed
from udh_jax.encoders.distributed.parts import code_batches, parts_to_index, parts_to_store

__all__ = ["Encoded", "code_batches", "encode_distributed", "parts_to_index", "parts_to_store"]
