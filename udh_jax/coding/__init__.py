"""Real outputs in, bits out: sign, packing, discrete descent and the shallow baselines."""

from udh_jax.coding.baselines import LinearHash, encode, itq, lsh, pca_rotation
from udh_jax.coding.binary import pack_codes, sign, unpack_codes
from udh_jax.coding.dcc import dcc

__all__ = [
  "LinearHash",
  "dcc",
  "encode",
  "itq",
  "lsh",
  "pack_codes",
  "pca_rotation",
  "sign",
  "unpack_codes",
]
