"""Real outputs in, bits out: sign, packing, discrete descent and the shallow floors."""

from udh_jax.coding.binary import pack_codes, sign, unpack_codes
from udh_jax.coding.dcc import dcc
from udh_jax.coding.floors import LinearHash, encode, itq, lsh, pca_rotation

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
