from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from udh_jax.data.pictures import read_picture
from udh_jax.encoders.queries import search_picture, search_pictures, search_text
from udh_jax.errors import InputError
from udh_jax.retrieval.index import HammingIndex


@pytest.fixture
def one(image_encoder, tmp_path):
  """An index of one picture, and its file."""
  picture = tmp_path / "a.png"
  Image.new("RGB", (8, 8), (200, 10, 60)).save(picture)
  code = image_encoder(read_picture(picture, 8)[None])
  return HammingIndex(code, ["a"], num_bits=12), picture


def test_a_search_needs_k_or_a_radius(one, image_encoder):
  index, picture = one
  for options in ({"k": 1}, {"k": None, "radius": 0}, {"k": 1, "radius": 0}):
    found = search_picture(index, image_encoder, picture, **options)
    assert (found.indices.tolist(), found.distances.tolist()) == ([0], [0])
  with pytest.raises(InputError, match="Neither k nor a radius is given"):
    search_picture(index, image_encoder, picture, k=None)


def test_an_asymmetric_search_needs_an_index(one, image_encoder):
  index, picture = one
  found = search_picture(index, image_encoder, picture, k=1, asymmetric=True)
  assert (found.indices.tolist(), found.distances.tolist()) == ([0], [0])
  store = SimpleNamespace(search=index.search, radius_search=index.radius_search)
  with pytest.raises(InputError, match="a store has not; make an index of the store"):
    search_picture(store, image_encoder, picture, k=1, asymmetric=True)
  with pytest.raises(InputError, match="Neither k nor a radius is given"):
    search_picture(index, image_encoder, picture, k=None, asymmetric=True)
  for options in ({"k": 0}, {"k": 0, "radius": 5}, {"k": -1, "radius": 5}):
    for asymmetric in (False, True):
      with pytest.raises(InputError, match=f"k is {options['k']}, expected 1"):
        search_picture(index, image_encoder, picture, asymmetric=asymmetric, **options)


@pytest.mark.parametrize("options", [{"k": 6}, {"k": None, "radius": 12}, {"k": 4, "radius": 12}])
def test_ties_of_an_asymmetric_search_go_by_index(one, image_encoder, options):
  index, picture = one
  codes = np.concatenate([index.codes, index.codes ^ np.uint8(16)])[[1, 0, 1, 0, 0, 1]]
  index = HammingIndex(codes, list("abcdef"), num_bits=12)
  found = search_picture(index, image_encoder, picture, asymmetric=True, **options)
  assert found.indices.tolist() == [1, 3, 4, 0, 2, 5][: options["k"]]
  assert found.distances.tolist() == [0, 0, 0, 2, 2, 2][: options["k"]]


@pytest.mark.parametrize("asymmetric", [False, True])
def test_an_index_with_fewer_items_than_k_gives_them_all(one, image_encoder, asymmetric):
  index, picture = one
  found = search_picture(index, image_encoder, picture, asymmetric=asymmetric)
  assert found.indices.tolist() == [0]
  (answer,) = search_pictures(index, image_encoder, [picture], k=1000, asymmetric=asymmetric)
  assert answer.hits.indices.tolist() == [0]
  empty = HammingIndex(index.codes[:0], [], num_bits=12)
  with pytest.raises(InputError, match="the index is empty; add codes"):
    search_picture(empty, image_encoder, picture, asymmetric=asymmetric)


def test_words_find_at_most_all_items(pair_encoder):
  index = HammingIndex(np.zeros((3, 2), np.uint8), list("abc"), num_bits=12)
  assert sorted(search_text(index, pair_encoder, "sea").indices.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_of_no_pictures_is_refused(one, image_encoder, size):
  index, picture = one
  with pytest.raises(InputError, match=f"The batch size is {size}; give 1 or more"):
    list(search_pictures(index, image_encoder, [picture], k=1, batch_size=size))


def test_words_need_an_encoder_of_pairs(one, image_encoder):
  with pytest.raises(InputError, match="takes pictures alone"):
    search_text(one[0], image_encoder, "sea")
