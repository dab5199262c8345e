"""Signs and packed bits: one definition of what a code is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.arrays import Array, jax_or_numpy
from udh_jax.errors import is_traced, require, require_finite, whole_number


def sign(x: Array) -> jax.Array:
  """Sign with sign(0) = +1, so that every output is a bit.

  Both zeros count as zero: sign(-0.0) = +1. The gradient is zero everywhere.

  Args:
    x: Real values, floating or signed integer. Array of any shape.

  Returns:
    Values in {-1, +1}, shape of ``x`` and its dtype as JAX has it.

  Raises:
    InputError: If ``x`` is boolean or unsigned, or holds NaN or infinity.

  References:
    Our own definition; published codes differ (numpy's sign(0) is 0, which is not a bit).
  """
  x = jax_or_numpy(x)
  require(
    jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.signedinteger),
    f"sign: x is {x.dtype}, which has no -1; give floating or signed integer values.",
  )
  if x.size and jnp.issubdtype(x.dtype, jnp.floating):
    require_finite("sign: x", x.reshape(-1) if x.ndim == 0 else x)
  # Compared as it was given: JAX may have fewer bits for numbers of NumPy, and so other signs.
  return jnp.where(x >= 0, 1, -1).astype(jax.dtypes.canonicalize_dtype(x.dtype))


def pack_codes(codes: Array) -> jax.Array:
  """Packs codes to eight bits a byte, bit 1 where the code is +1.

  The first bit of a code is the highest bit of its first byte (the order of ``numpy.packbits``).
  The bytes serve every FAISS binary index as they are, since Hamming distance does not depend on
  the order of bits; FAISS's own float-to-bit converters (``fvecs2bitvecs``) put the first bit
  lowest, so codes packed by the two must not be mixed.

  Args:
    codes: Values in {-1, +1} (floating or signed integer), or boolean. Array of shape ``[n, c]``.

  Returns:
    uint8 array of shape ``[n, ceil(c / 8)]``; the padding bits of the last byte are 0.

  Raises:
    InputError: If the shape or dtype is wrong, or a value is neither -1 nor +1 ({0, 1} and real
      values are refused, not guessed). Values are not checked under a trace.

  References:
    Our own definition.
  """
  codes = jax_or_numpy(codes)
  require(
    codes.ndim == 2 and codes.shape[1] >= 1,
    f"pack_codes: codes have shape {codes.shape}, expected [n, c] with c >= 1.",
  )
  if codes.dtype == jnp.bool_:
    return _pack(codes)
  require(
    jnp.issubdtype(codes.dtype, jnp.floating) or jnp.issubdtype(codes.dtype, jnp.signedinteger),
    f"pack_codes: codes are {codes.dtype}, expected {{-1, +1}} or bool.",
  )
  require_unit("pack_codes: codes", codes)
  return _pack(codes > 0)


def unpack_codes(packed: Array, num_bits: int) -> jax.Array:
  """The inverse of `pack_codes`.

  Args:
    packed: uint8 array of shape ``[n, ceil(num_bits / 8)]``.
    num_bits: Number of bits c of a code.

  Returns:
    int8 array of shape ``[n, c]``, values in {-1, +1}.

  Raises:
    InputError: If the dtype is not uint8 or the width does not fit ``num_bits``.

  References:
    Our own definition.
  """
  packed = jnp.asarray(packed)
  require_packed("unpack_codes: packed", packed)
  num_bits = whole_number("unpack_codes: num_bits", num_bits)
  require(
    num_bits >= 1 and packed.shape[1] == -(-num_bits // 8),
    f"unpack_codes: packed has shape {packed.shape}, {num_bits} bits need "
    f"[n, {-(-num_bits // 8)}] with num_bits >= 1.",
  )
  return _unpack(packed, num_bits)


def require_unit(name: str, codes: Array) -> None:
  """Refuses codes with values other than -1 and +1, where values are known.

  Args:
    name: What the array is called in the message.
    codes: Array of any shape.

  Raises:
    InputError: If there are others.
  """
  if codes.size and not is_traced(codes) and getattr(codes, "is_fully_addressable", True):
    if jax.dtypes.canonicalize_dtype(codes.dtype) != codes.dtype:  # JAX would change the values
      wrong = int(((codes != 1) & (codes != -1)).sum())
    else:
      with jax.ensure_compile_time_eval():  # a function that is traced may close over them
        wrong = int(_count_not_unit(codes))
    require(
      wrong == 0,
      f"{name}: {wrong} of {codes.size} values are neither -1 nor +1; pass real outputs through "
      "sign() and {0, 1} codes as bool.",
    )


def padding_is_set(packed: np.ndarray, num_bits: int) -> bool:
  """Whether a bit after the last one of a code is set, which would count in distances.

  Args:
    packed: uint8 array of shape ``[n, ceil(num_bits / 8)]``.
    num_bits: Length of the codes.
  """
  padding = -num_bits % 8
  return padding > 0 and bool((packed[:, -1] & ((1 << padding) - 1)).any())


def require_packed(name: str, packed: Array) -> None:
  """Refuses anything that is not a matrix of bytes.

  Args:
    name: What the array is called in the message.
    packed: The array to check.

  Raises:
    InputError: If ``packed`` is not uint8 of shape ``[n, bytes]`` with at least one byte.
  """
  require(
    packed.ndim == 2 and packed.shape[1] >= 1 and packed.dtype == jnp.uint8,
    f"{name} is {packed.dtype} of shape {packed.shape}, expected uint8 [n, bytes] from pack_codes.",
  )


@jax.jit
def _count_not_unit(codes):
  return jnp.sum(jnp.abs(codes) != 1)


@jax.jit
def _pack(bits):
  return jnp.packbits(bits, axis=1)


@functools.partial(jax.jit, static_argnums=1)
def _unpack(packed, num_bits):
  # Not jnp.unpackbits, which fails on no rows.
  bits = (packed[:, :, None] >> jnp.arange(7, -1, -1, dtype=jnp.uint8)) & 1  # [n, bytes, 8]
  bits = bits.reshape(packed.shape[0], 8 * packed.shape[1])[:, :num_bits]
  return bits.astype(jnp.int8) * 2 - 1
