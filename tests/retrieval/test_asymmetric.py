"""Search by outputs against packed codes, against plain numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from udh_jax.coding import pack_codes
from udh_jax.coding.binary import sign
from udh_jax.cpu import choice
from udh_jax.errors import InputError
from udh_jax.retrieval import NO_NEIGHBOUR, asymmetric, asymmetric_search, search

pytestmark = pytest.mark.usefixtures("each_kernel")


def plain(outputs, signs, k):
  similarities = np.asarray(outputs, np.float64) @ signs.T
  order = np.argsort(-similarities, axis=1, kind="stable")[:, :k]
  return np.take_along_axis(similarities, order, axis=1), order


def made(rng, num_queries, num_items, bits, *, distinct=None):
  """Outputs that are multiples of 1/8, so that no sum is rounded; items repeat, as ties do."""
  outputs = rng.integers(-40, 40, (num_queries, bits)) / 8
  signs = rng.choice([-1, 1], (distinct or num_items, bits))
  signs = signs[rng.integers(0, len(signs), num_items)]
  return outputs.astype(np.float32), signs.astype(np.int8), np.asarray(pack_codes(signs))


@pytest.mark.parametrize("bits", [1, 7, 8, 12, 64])
@pytest.mark.parametrize(
  ("items", "k", "distinct"), [(1, 1, 1), (40, 40, 7), (700, 9, 50), (700, 300, 50), (700, 700, 9)]
)
def test_the_most_similar_come_first_and_ties_by_index(rng, monkeypatch, bits, items, k, distinct):
  # 700 items are three chunks of 256, or of k; of 8 bits two queries are taken at once.
  monkeypatch.setattr(asymmetric, "_CHUNK", 512)
  outputs, signs, codes = made(rng, 5, items, bits, distinct=distinct)
  found = asymmetric_search(outputs, codes, k)
  similarities, order = plain(outputs, signs, k)
  np.testing.assert_array_equal(found.indices, order)
  np.testing.assert_array_equal(found.similarities, similarities)
  assert found.indices.dtype == np.int32 and found.similarities.dtype == np.float32


@pytest.mark.parametrize("bits", [1, 5, 32, 61, 64, 200, 300])
@pytest.mark.parametrize("k", [1, 10, 600])
def test_both_kernels_sum_alike(rng, each_kernel, bits, k):
  if each_kernel == "jax":
    pytest.skip("the two are compared once")
  outputs = rng.normal(size=(3, bits)).astype(np.float32)
  outputs[1] **= 9  # of few bits that matter: distances say little
  outputs[2] = np.sign(outputs[2])  # distances say all, and most items tie
  flipped = rng.random((5000, bits)) < rng.random((5000, 1)) / 2
  codes = np.packbits((outputs[rng.integers(0, 3, 5000)] >= 0) ^ flipped, axis=1)
  found = asymmetric_search(outputs, codes, k)
  with choice.kernels("jax"):
    wanted = asymmetric_search(outputs, codes, k)
  for part, other in zip(found, wanted, strict=True):
    np.testing.assert_array_equal(part, other)


def test_of_signs_it_is_the_order_of_hamming_distances(rng):
  signs = rng.choice([-1.0, 1.0], (90, 12)).astype(np.float32)
  codes = np.asarray(pack_codes(signs))
  found, nearest = asymmetric_search(signs[:9], codes, 90), search(codes[:9], codes, 90)
  np.testing.assert_array_equal(found.indices, nearest.indices)
  np.testing.assert_array_equal(found.similarities, 12 - 2 * np.asarray(nearest.distances))


def test_equal_codes_are_equally_similar_whatever_is_rounded(rng):
  outputs = rng.normal(size=(3, 61)).astype(np.float32)
  signs = rng.choice([-1, 1], (4, 61))[rng.integers(0, 4, 501)]
  found = asymmetric_search(outputs, np.asarray(pack_codes(signs)), 501)
  for row, own in zip(np.asarray(found.indices), np.asarray(found.similarities), strict=True):
    assert len(np.unique(own)) == 4
    for value in np.unique(own):
      assert (np.diff(row[own == value]) > 0).all()


def test_the_scale_of_the_outputs_does_not_matter_and_0_counts_nothing(rng):
  outputs, signs, codes = made(rng, 4, 60, 16, distinct=20)
  outputs[:, 3] = 0
  wanted = np.asarray(asymmetric_search(outputs, codes, 60).indices)
  np.testing.assert_array_equal(asymmetric_search(outputs / 1024, codes, 60).indices, wanted)
  signs[:, 3] *= -1
  other = np.asarray(pack_codes(signs))
  np.testing.assert_array_equal(asymmetric_search(outputs, other, 60).indices, wanted)


@pytest.mark.parametrize("scale", [2.0**-120, 2.0**120])
def test_no_sum_leaves_the_range_of_float32(rng, scale):
  outputs, _, codes = made(rng, 4, 60, 64, distinct=20)
  wanted = np.asarray(asymmetric_search(outputs, codes, 60).indices)
  np.testing.assert_array_equal(asymmetric_search(outputs * scale, codes, 60).indices, wanted)


def test_at_the_end_of_float32_the_order_is_right(rng):
  outputs, signs, codes = made(rng, 4, 60, 12, distinct=20)
  outputs = (outputs / 5 * np.float32(3e38)).astype(np.float32)
  found = asymmetric_search(outputs, codes, 60)
  np.testing.assert_array_equal(found.indices, plain(outputs, signs, 60)[1])


@pytest.mark.parametrize("k", [None, 1, 7, 60, 99])
@pytest.mark.parametrize("scale", [1, 2.0**120, 2.0**-100])
def test_a_few_items_are_put_in_the_same_order(rng, k, scale):
  outputs, signs, codes = made(rng, 4, 60, 12, distinct=20)
  for row, wanted in zip(outputs, plain(outputs, signs, 60)[1], strict=True):
    found = asymmetric.most_similar_first(row * np.float32(scale), codes, k)
    np.testing.assert_array_equal(found, wanted[:k])
  assert asymmetric.most_similar_first(outputs[0], codes[:0], k).tolist() == []


@pytest.mark.parametrize("dtype", [jnp.bfloat16, np.float16, np.float64])
def test_other_floats_count_as_their_float32(rng, dtype):
  outputs, signs, codes = made(rng, 3, 30, 12)
  found = asymmetric_search(outputs.astype(dtype), codes, 30)
  np.testing.assert_array_equal(found.indices, plain(outputs, signs, 30)[1])
  assert found.similarities.dtype == np.float32


def test_masked_items_are_never_found(rng):
  outputs, signs, codes = made(rng, 4, 50, 9, distinct=9)
  valid = rng.random(50) < 0.5
  found = asymmetric_search(outputs, codes, int(valid.sum()), valid=valid)
  _, order = plain(outputs, signs[valid], int(valid.sum()))
  np.testing.assert_array_equal(found.indices, np.flatnonzero(valid)[order])
  with pytest.raises(InputError, match=f"expected 1 to {valid.sum()}"):
    asymmetric_search(outputs, codes, int(valid.sum()) + 1, valid=valid)
  for wrong in (valid[1:], valid[:, None], valid.astype(float)):
    with pytest.raises(InputError, match=r"valid is .* expected bool \[50\]"):
      asymmetric_search(outputs, codes, 1, valid=wrong)


def test_places_that_no_valid_item_fills_are_said_so(rng, mesh):
  outputs, signs, codes = made(rng, 4, 16, 9)
  valid = np.arange(16) % 8 == 3
  function = functools.partial(asymmetric_search, k=4)
  alone = jax.jit(lambda *rows: function(rows[0], rows[1], valid=rows[2]))
  sharded = jax.jit(
    jax.shard_map(
      lambda *rows: function(rows[0], rows[1], valid=rows[2], axis_name="data"),
      mesh=mesh,
      in_specs=(P(), P("data"), P("data")),
      out_specs=P("data"),
    )
  )
  similarities, order = plain(outputs, signs[valid], 2)
  for found in (alone(outputs, codes, valid), sharded(outputs, codes, valid)):
    values, indices = (np.asarray(part)[:4] for part in found)
    np.testing.assert_array_equal(indices[:, :2], np.flatnonzero(valid)[order])
    np.testing.assert_array_equal(values[:, :2], similarities)
    assert (indices[:, 2:] == NO_NEIGHBOUR).all() and (values[:, 2:] == -np.inf).all()


@pytest.mark.parametrize(("n", "k"), [(75, 5), (75, 40), (9, 9)])
def test_a_database_on_eight_devices_gives_the_same(rng, mesh, n, k):
  outputs, signs, codes = made(rng, 6, n, 12, distinct=20)
  rows = -(-n // 8)  # fewer than k on each device: the answer needs several of them
  padded, valid = np.pad(codes, ((0, 8 * rows - n), (0, 0))), np.arange(8 * rows) < n
  expected = plain(outputs, signs, k)
  find = functools.partial(asymmetric_search, k=k, axis_name="data")

  def found(outputs, codes, valid):
    return find(outputs, codes, valid=valid)

  sharded = jax.jit(
    jax.shard_map(found, mesh=mesh, in_specs=(P(), P("data"), P("data")), out_specs=P("data"))
  )(outputs, padded, valid)
  mapped = jax.pmap(found, axis_name="data", in_axes=(None, 0, 0))(
    outputs, padded.reshape(8, rows, -1), valid.reshape(8, rows)
  )
  for answer, split in ((sharded, lambda x: x.reshape(8, 6, k)), (mapped, lambda x: x)):
    for part, wanted in zip(answer, expected, strict=True):
      np.testing.assert_array_equal(split(np.asarray(part)), np.tile(wanted, (8, 1, 1)))


def test_no_queries_find_nothing(rng):
  _, _, codes = made(rng, 1, 5, 12)
  found = asymmetric_search(np.zeros((0, 12), np.float32), codes, 3)
  assert found.similarities.shape == found.indices.shape == (0, 3)


def test_it_finds_what_its_own_hash_function_made(rng):
  rows = rng.normal(size=(30, 24)).astype(np.float32)
  codes = np.asarray(pack_codes(sign(rows)))
  found = asymmetric_search(rows, codes, 1)
  np.testing.assert_array_equal(np.asarray(found.indices)[:, 0], np.arange(30))


@pytest.mark.parametrize(
  ("outputs", "codes", "k", "message"),
  [
    (np.zeros((2, 8), np.uint8), np.zeros((3, 1), np.uint8), 1, "outputs are uint8 of shape"),
    (np.zeros(8, np.float32), np.zeros((3, 1), np.uint8), 1, r"expected floats \[q, bits\]"),
    (np.zeros((2, 9), np.float32), np.zeros((3, 1), np.uint8), 1, r"9 bits need \[n, 2\]"),
    (np.zeros((2, 8), np.float32), np.zeros((3, 1), np.int32), 1, "database"),
    (np.zeros((2, 8), np.float32), np.zeros((3, 1), np.uint8), 0, "k is 0, expected 1 to 3"),
    (np.zeros((2, 8), np.float32), np.zeros((3, 1), np.uint8), 4, "k is 4, expected 1 to 3"),
    (np.zeros((2, 8), np.float32), np.zeros((0, 1), np.uint8), 1, "the database is empty"),
    (np.full((2, 8), np.nan, np.float32), np.zeros((3, 1), np.uint8), 1, "outputs"),
    (np.full((2, 8), 1e300), np.zeros((3, 1), np.uint8), 1, "outputs"),
  ],
)
def test_invalid_arguments_are_named(outputs, codes, k, message):
  with pytest.raises(InputError, match=message):
    asymmetric_search(outputs, codes, k)
