"""Real outputs in, bits out: sign, packing, discrete descent and the shallow baselines."""

from udh_jax.coding.baselines import LinearHash, encode, itq, lsh, pca_rotation
from udh_jax.coding.binary import pack_codes, sign, unpack_codes
from udh_jax.coding.dcc import dcc
from udh_jax.coding.discriminant import discriminant_directions, discriminant_itq

__all__ = [
  "LinearHash",
  "dcc",
  "discriminant_directions",
  "discriminant_itq",
  "encode",
  "itq",
  "lsh",
  "pack_codes",
  "pca_rotation",
  "sign",
  "unpack_codes",
]
