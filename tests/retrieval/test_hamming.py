"""Distances and exact search, against plain numpy and FAISS."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from udh_jax.coding import pack_codes
from udh_jax.errors import InputError
from udh_jax.retrieval import (
  NO_NEIGHBOUR,
  asymmetric_search,
  hamming,
  hamming_distance,
  radius_search,
  search,
)

pytestmark = pytest.mark.usefixtures("each_kernel")


def plain_distance(queries, database):
  return np.unpackbits(queries[:, None] ^ database[None], axis=2).sum(axis=2, dtype=np.int64)


def plain_search(queries, database, k):
  distances = plain_distance(queries, database)
  order = np.argsort(distances, axis=1, kind="stable")[:, :k]
  return np.take_along_axis(distances, order, axis=1), order


def random_bytes(rng, *shape, high=256):
  return rng.integers(0, high, shape, dtype=np.uint8)


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 4, 8, 9, 32, 40])
def test_distances_count_the_bits_that_differ(rng, num_bytes):
  queries, database = random_bytes(rng, 5, num_bytes), random_bytes(rng, 33, num_bytes)
  distances = hamming_distance(queries, database)
  assert distances.dtype == jnp.int32
  np.testing.assert_array_equal(distances, plain_distance(queries, database))


@pytest.mark.parametrize("num_bytes", [1, 7, 8, 9, 40])
def test_words_of_eight_bytes_hold_all_bits_and_zeros(rng, num_bytes):
  packed = random_bytes(rng, 5, num_bytes)
  words = hamming.as_long_words(packed)
  assert words.dtype == np.uint64 and words.shape == (5, -(-num_bytes // 8))
  for row, found in zip(packed, words, strict=True):
    assert found.tobytes() == row.tobytes() + bytes(-num_bytes % 8)


def test_few_programs_are_compiled_and_find_the_same(rng, monkeypatch):
  monkeypatch.setattr(hamming.choice, "use_numba", lambda *_: False)
  codes = random_bytes(rng, 70, 2, high=4)
  hamming._search.clear_cache()
  for count in range(1, 33):
    k = 1 + count % 16
    found = search(codes[:count], codes, k)
    for values, expected in zip(found, plain_search(codes[:count], codes, k), strict=True):
      np.testing.assert_array_equal(values, expected)
  assert hamming._search._cache_size() <= 20


def test_opposite_codes_differ_in_every_bit_and_padding_never_counts():
  codes = np.ones((1, 300))
  assert hamming_distance(pack_codes(codes), pack_codes(-codes))[0, 0] == 300
  assert hamming_distance(pack_codes(codes[:, :13]), pack_codes(-codes[:, :13]))[0, 0] == 13


def test_distances_of_nothing_are_nothing():
  one, none = np.zeros((1, 4), np.uint8), np.zeros((0, 4), np.uint8)
  assert hamming_distance(none, one).shape == (0, 1)
  assert hamming_distance(one, none).shape == (1, 0)


@pytest.mark.parametrize(
  ("q", "n", "num_bytes", "k", "high"),
  [
    (1, 1, 1, 1, 256),
    (3, 64, 8, 64, 256),  # the whole database, exactly one block
    (4, 130, 2, 65, 256),
    (7, 257, 4, 10, 2),  # heavy ties
    (2, 300, 3, 300, 1),  # all codes alike: the order is the index
    (3, 100, 31, 5, 256),  # the widest codes with one-byte distances
    (3, 100, 32, 5, 256),  # the narrowest with two-byte distances
    (2, 300, 128, 20, 256),
  ],
)
def test_search_is_exact_with_ties_by_index(rng, q, n, num_bytes, k, high):
  queries, database = random_bytes(rng, q, num_bytes), random_bytes(rng, n, num_bytes, high=high)
  distances, indices = search(queries, database, k)
  assert distances.dtype == indices.dtype == jnp.int32
  expected_distances, expected_indices = plain_search(queries, database, k)
  np.testing.assert_array_equal(indices, expected_indices)
  np.testing.assert_array_equal(distances, expected_distances)


def test_opposite_codes_are_found_at_the_largest_distance():
  distances, indices = search(np.zeros((1, 31), np.uint8), np.full((3, 31), 255, np.uint8), 3)
  np.testing.assert_array_equal(distances, [[248, 248, 248]])
  np.testing.assert_array_equal(indices, [[0, 1, 2]])


@pytest.fixture(params=[3, 1])
def in_chunks(request, monkeypatch, each_kernel):
  """So many queries at a time; of 11 the last chunk is short."""
  monkeypatch.setattr(hamming, "_CHUNK", request.param * 256 if request.param > 1 else 1)
  if each_kernel == "numba":
    from udh_jax.cpu import neighbours

    monkeypatch.setattr(neighbours, "_QUERIES", request.param)
  programs = hamming._search, hamming._count_within
  for program in programs:
    program.clear_cache()
  yield
  for program in programs:
    program.clear_cache()


@pytest.mark.usefixtures("in_chunks")
def test_chunks_of_queries_do_not_show(rng):
  queries, database = random_bytes(rng, 11, 2), random_bytes(rng, 200, 2)
  for found, expected in zip(
    search(queries, database, 7), plain_search(queries, database, 7), strict=True
  ):
    np.testing.assert_array_equal(found, expected)


def test_items_that_come_ever_nearer_are_all_candidates(rng):
  # The worst case of keeping candidates: each item is nearer than all before it, or as near.
  database = np.packbits(np.arange(64) < np.arange(6000)[::-1, None] // 94, axis=1)
  for k in (1, 3, 700):
    found = search(np.zeros((1, 8), np.uint8), database, k)
    for a, b in zip(found, plain_search(np.zeros((1, 8), np.uint8), database, k), strict=True):
      np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("n", "num_bytes"), [(1, 1), (300, 2), (2500, 8), (300, 32)])
@pytest.mark.parametrize("radius", [0, 5, np.int64(9), 10**6])
def test_radius_search_finds_everything_within(rng, n, num_bytes, radius):
  queries = random_bytes(rng, 5, num_bytes, high=4)
  database = random_bytes(rng, n, num_bytes, high=4)
  require_all_within(queries, database, radius)


def require_all_within(queries, database, radius):
  starts, distances, indices = radius_search(queries, jnp.asarray(database), radius)
  assert starts.dtype == np.int64 and distances.dtype == indices.dtype == np.int32
  assert starts[0] == 0 and starts[-1] == len(distances) == len(indices)
  for query, (every, order) in enumerate(
    zip(*plain_search(queries, database, len(database)), strict=True)
  ):
    mine = slice(starts[query], starts[query + 1])
    np.testing.assert_array_equal(distances[mine], every[every <= radius])
    np.testing.assert_array_equal(indices[mine], order[every <= radius])


def test_a_radius_search_may_be_told_how_much_to_hold(rng):
  queries, database = (rng.integers(0, 256, (n, 2), np.uint8) for n in (7, 90))
  total = radius_search(queries, database, 7).indices.size
  assert radius_search(queries, database, 7, most=total).indices.size == total
  with pytest.raises(hamming.TooManyHitsError, match=rf"{total} items .* 7 queries, most is"):
    radius_search(queries, database, 7, most=total - 1)


def test_radius_search_of_nothing_is_nothing():
  one, none = np.zeros((1, 4), np.uint8), np.zeros((0, 4), np.uint8)
  assert radius_search(one, none, 3).starts.tolist() == [0, 0]
  assert radius_search(none, one, 3).starts.tolist() == [0]
  assert radius_search(one, ~one, 3).indices.size == 0
  with pytest.raises(InputError, match="radius is -1, expected 0 or more"):
    radius_search(one, one, -1)
  with pytest.raises(InputError, match=r"radius is 0.5, expected a whole number"):
    radius_search(one, one, 0.5)


def test_numpy_integers_and_64_bit_mode_change_nothing(rng):
  queries, database = random_bytes(rng, 3, 4), random_bytes(rng, 40, 4)
  for k in (3, np.int64(3), np.uint8(3), 3.0):
    with jax.enable_x64(k == np.int64(3)):
      found = search(queries, database, k)
    for a, b in zip(found, plain_search(queries, database, 3), strict=True):
      assert a.dtype == np.int32
      np.testing.assert_array_equal(a, b)


def test_faiss_finds_the_same_distances(rng):
  faiss = pytest.importorskip("faiss")
  queries, database = random_bytes(rng, 6, 8), random_bytes(rng, 500, 8)
  index = faiss.IndexBinaryFlat(64)
  index.add(database)
  np.testing.assert_array_equal(search(queries, database, 20)[0], index.search(queries, 20)[0])


def test_a_query_finds_itself_first(rng):
  database = np.unique(random_bytes(rng, 90, 8), axis=0)
  distances, indices = search(database, database, 1)
  np.testing.assert_array_equal(indices[:, 0], np.arange(len(database)))
  np.testing.assert_array_equal(distances, 0)


def test_one_mask_on_all_codes_changes_nothing(rng):
  queries, database, mask = random_bytes(rng, 4, 3), random_bytes(rng, 70, 3), random_bytes(rng, 3)
  np.testing.assert_array_equal(
    search(queries ^ mask, database ^ mask, 9), search(queries, database, 9)
  )


def test_masked_rows_are_never_neighbours(rng):
  queries, database = random_bytes(rng, 5, 1), random_bytes(rng, 90, 1, high=4)
  valid = rng.random(90) < 0.5
  kept = np.flatnonzero(valid)
  distances, indices = search(queries, database, len(kept), valid=valid)
  expected_distances, expected_indices = plain_search(queries, database[kept], len(kept))
  np.testing.assert_array_equal(indices, kept[expected_indices])
  np.testing.assert_array_equal(distances, expected_distances)


def test_places_that_no_valid_item_fills_say_so():
  searched = jax.jit(functools.partial(search, k=3))
  distances, indices = searched(
    np.zeros((1, 2), np.uint8), np.zeros((4, 2), np.uint8), valid=np.array([0, 1, 0, 0], bool)
  )
  np.testing.assert_array_equal(indices, [[1, NO_NEIGHBOUR, NO_NEIGHBOUR]])
  np.testing.assert_array_equal(distances, [[0, 17, 17]])


@pytest.mark.parametrize(("n", "k"), [(75, 5), (75, 40), (9, 9)])
def test_a_database_on_eight_devices_gives_the_same_neighbours(rng, mesh, n, k):
  queries, database = random_bytes(rng, 6, 2, high=8), random_bytes(rng, n, 2, high=8)
  rows = -(-n // 8)  # fewer than k on each device: the answer needs several of them
  padded = np.pad(database, ((0, 8 * rows - n), (0, 0)))
  valid = np.arange(8 * rows) < n
  expected = plain_search(queries, database, k)

  def find(queries, database, valid):
    return search(queries, database, k, valid=valid, axis_name="data")

  sharded = jax.jit(
    jax.shard_map(
      find,
      mesh=mesh,
      in_specs=(P(), P("data"), P("data")),
      out_specs=P("data"),  # each device holds the whole answer
    )
  )(queries, padded, valid)
  mapped = jax.pmap(find, axis_name="data", in_axes=(None, 0, 0))(
    queries, padded.reshape(8, rows, 2), valid.reshape(8, rows)
  )
  for found, split in ((sharded, lambda x: x.reshape(8, 6, k)), (mapped, lambda x: x)):
    for answer, wanted in zip(found, expected, strict=True):
      np.testing.assert_array_equal(split(np.asarray(answer)), np.tile(wanted, (8, 1, 1)))


def test_no_queries_find_nothing():
  distances, indices = search(np.zeros((0, 2), np.uint8), np.zeros((5, 2), np.uint8), 3)
  assert distances.shape == indices.shape == (0, 3)


CODES = np.zeros((3, 2), np.uint8)


@pytest.mark.parametrize(
  ("queries", "database", "k", "options", "message"),
  [
    (CODES, np.zeros((3, 4), np.uint8), 1, {}, r"\(3, 2\) and database \(3, 4\)"),
    (CODES.astype(np.int32), CODES, 1, {}, "queries is int32"),
    (CODES, CODES[0], 1, {}, r"database is uint8 of shape \(2,\)"),
    (CODES, CODES, 4, {}, "k is 4, expected 1 to 3"),
    (CODES, CODES, 0, {}, "k is 0, expected 1 to 3"),
    (CODES, CODES, 1.5, {}, "k is 1.5, expected a whole number"),
    (CODES, CODES[:0], 1, {}, "database is empty"),
    (CODES, CODES, 3, {"valid": np.array([True, False, True])}, "k is 3, expected 1 to 2"),
    (CODES, CODES, 1, {"valid": np.ones(2, bool)}, r"valid is bool of shape \(2,\)"),
    (CODES, CODES, 1, {"valid": np.ones(3)}, "valid is float"),
  ],
)
def test_bad_input_is_refused_in_one_line(queries, database, k, options, message):
  with pytest.raises(InputError, match=message) as error:
    search(queries, database, k, **options)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "call",
  [lambda a, b: search(a, b, 2), lambda a, b: radius_search(a, b, 1), hamming_distance],
)
def test_codes_whose_distances_do_not_fit_are_refused(call):
  opposite = np.full((2, 8192), 255, np.uint8)
  with pytest.raises(InputError, match=r"have 8,192 bytes, expected at most 8,191 \(65,528 bits\)"):
    call(~opposite, opposite)


@pytest.mark.parametrize(
  "each_kernel",
  ["numba", pytest.param("jax", marks=pytest.mark.slow)],  # it compiles for half a minute
  indirect=True,
)
def test_the_widest_codes_have_exact_distances(each_kernel):
  database = np.zeros((2, 8191), np.uint8)
  database[0], database[1, 0] = 255, 1
  query = np.zeros((1, 8191), np.uint8)
  distances, indices = search(query, database, 2)
  np.testing.assert_array_equal(distances, [[1, 65528]])
  np.testing.assert_array_equal(indices, [[1, 0]])
  np.testing.assert_array_equal(radius_search(query, database, 65528).distances, [1, 65528])


@pytest.mark.usefixtures("in_chunks")
def test_chunks_of_a_radius_search_do_not_show(rng):
  queries, database = random_bytes(rng, 11, 2, high=4), random_bytes(rng, 200, 2, high=4)
  require_all_within(queries, database, 2)


def test_items_beyond_what_indices_count_are_refused():
  codes = np.broadcast_to(np.zeros((1, 1), np.uint8), (2**31, 1))
  query = np.zeros((1, 1), np.uint8)
  for ask in (
    lambda: search(query, codes, 1),
    lambda: radius_search(query, codes, 0),
    lambda: asymmetric_search(np.zeros((1, 8), np.float32), codes, 1),
  ):
    with pytest.raises(InputError, match=r"2,147,483,648 items, expected at most 2,147,483,647"):
      ask()
