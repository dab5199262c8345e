"""Signs and packing, against numpy and FAISS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.coding import pack_codes, sign, unpack_codes
from udh_jax.errors import InputError


def random_codes(rng, n, c, dtype=np.float32):
  return np.where(rng.normal(size=(n, c)) >= 0, 1, -1).astype(dtype)


def test_sign_of_both_zeros_is_plus_one():
  x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0])
  np.testing.assert_array_equal(sign(x), [-1, 1, 1, 1, 1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int8, jnp.int32])
def test_sign_keeps_shape_and_dtype(dtype):
  x = jnp.array([[[-3, 0, 2]]], dtype)
  assert sign(x).shape == x.shape
  assert sign(x).dtype == dtype
  assert jax.jit(sign)(x).dtype == dtype


def test_sign_takes_scalars_and_nothing():
  assert sign(0.0) == 1
  assert sign(jnp.zeros((0, 4))).shape == (0, 4)


def test_sign_refuses_nan_and_says_how_many_rows():
  with pytest.raises(InputError, match="1 of 2 rows"):
    sign(jnp.array([[1.0, 2.0], [jnp.nan, 1.0]]))


@pytest.mark.parametrize("x", [np.array([True]), np.array([1], np.uint8)])
def test_sign_refuses_what_has_no_minus_one(x):
  with pytest.raises(InputError, match="no -1"):
    sign(x)


def test_no_gradient_flows_through_sign():
  np.testing.assert_array_equal(jax.grad(lambda x: sign(x).sum())(jnp.array([-1.0, 0.0, 2.0])), 0)


@pytest.mark.parametrize("num_bits", [1, 7, 8, 9, 16, 63, 64, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int32, bool])
def test_packing_agrees_with_numpy_and_comes_back(rng, num_bits, dtype):
  codes = random_codes(rng, 13, num_bits)
  given = codes > 0 if dtype is bool else codes.astype(dtype)
  packed = pack_codes(given)
  assert packed.dtype == jnp.uint8
  np.testing.assert_array_equal(packed, np.packbits(codes > 0, axis=1))
  np.testing.assert_array_equal(jax.jit(pack_codes)(given), packed)
  unpacked = unpack_codes(packed, num_bits)
  assert unpacked.dtype == jnp.int8
  np.testing.assert_array_equal(unpacked, codes)


def test_padding_bits_are_zero():
  np.testing.assert_array_equal(pack_codes(np.ones((1, 9))), [[0b11111111, 0b10000000]])


def test_no_codes_pack_to_no_bytes():
  assert pack_codes(np.ones((0, 12), np.int8)).shape == (0, 2)
  assert unpack_codes(np.zeros((0, 2), np.uint8), 12).shape == (0, 12)


@pytest.mark.parametrize(
  "codes",
  [
    np.array([[0.0, 1.0]]),
    np.array([[0, 1]], np.int32),
    np.array([[0.3, -1.0]]),
    np.array([[np.nan, 1.0]]),
    np.array([[1, 1]], np.uint8),
    np.array([1.0, -1.0]),
    np.ones((3, 0)),
  ],
)
def test_what_is_no_code_is_refused(codes):
  with pytest.raises(InputError):
    pack_codes(codes)


def test_the_refusal_counts_the_wrong_values():
  with pytest.raises(InputError, match="2 of 4 values"):
    pack_codes(np.array([[0, 1], [1, 0]]))


@pytest.mark.parametrize(
  ("packed", "num_bits"),
  [
    (np.zeros((3, 2), np.uint8), 17),
    (np.zeros((3, 2), np.uint8), 8),
    (np.zeros((3, 2), np.uint8), 0),
    (np.zeros((3, 2), np.int32), 16),
    (np.zeros(3, np.uint8), 8),
  ],
)
def test_unpacking_refuses_widths_and_dtypes_that_do_not_fit(packed, num_bits):
  with pytest.raises(InputError):
    unpack_codes(packed, num_bits)


@pytest.mark.parametrize("num_bits", [8, 20, 64])
def test_faiss_measures_the_same_distances_on_packed_codes(rng, num_bits):
  faiss = pytest.importorskip("faiss")
  queries, database = random_codes(rng, 5, num_bits), random_codes(rng, 40, num_bits)
  packed = np.asarray(pack_codes(database))
  index = faiss.IndexBinaryFlat(8 * packed.shape[1])
  index.add(packed)
  distances, found = index.search(np.asarray(pack_codes(queries)), 40)
  expected = (num_bits - queries @ database.T) / 2
  np.testing.assert_array_equal(distances, np.take_along_axis(expected, found, axis=1))


def test_faiss_converters_put_the_first_bit_lowest(rng):
  # Documented in pack_codes: bytes of FAISS's own converters are another order of the same bits.
  faiss = pytest.importorskip("faiss")
  codes = random_codes(rng, 6, 24)
  theirs = np.zeros((6, 3), np.uint8)
  faiss.fvecs2bitvecs(faiss.swig_ptr(codes), faiss.swig_ptr(theirs), 24, 6)
  np.testing.assert_array_equal(theirs, np.packbits(codes > 0, axis=1, bitorder="little"))
  assert (theirs != np.asarray(pack_codes(codes))).any()


def test_signs_of_numbers_that_jax_would_narrow():
  wide = np.array([2**31, -(2**31) - 1, 2**40, -(2**63), 2**63 - 1, 0])
  np.testing.assert_array_equal(sign(wide), [1, -1, 1, -1, 1, 1])
  np.testing.assert_array_equal(sign(np.array([-1e-46, 1e-46, -0.0])), [-1, 1, 1])
  assert sign(wide).dtype == jnp.asarray(wide[-1:]).dtype
  for codes in (np.array([[2**32 + 1, -1, 1]]), np.array([[1.0 + 1e-12, 1, 1]])):
    with pytest.raises(InputError, match="1 of 3 values are neither -1 nor"):
      pack_codes(codes)
  np.testing.assert_array_equal(pack_codes(np.array([[1, -1, 1]])), [[160]])
  np.testing.assert_array_equal(pack_codes(np.array([[1.0, -1, 1]])), [[160]])
