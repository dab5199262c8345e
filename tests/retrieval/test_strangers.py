"""A radius by the expected share of strangers, on codes whose strangers are known."""

import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex
from udh_jax.retrieval.strangers import radius_by_strangers


def families(rng, *, num_families=100, members=20, bits=64, flips=0.1):
  """Random codes, each with others that differ from it in a tenth of the bits."""
  centres = rng.random((num_families, bits)) < 0.5
  labels = np.repeat(np.arange(num_families), members)
  codes = centres[labels] ^ (rng.random((len(labels), bits)) < flips)
  return codes, labels


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3])
def test_the_stated_share_is_the_true_one(rng, share):
  codes, labels = families(rng)
  index = HammingIndex(np.packbits(codes, axis=1), [""] * len(codes), num_bits=64)
  found = radius_by_strangers(index, share=share)
  distances = (codes[:, None] != codes[None]).sum(axis=2)
  inside = (distances <= found.radius) & ~np.eye(len(codes), dtype=bool)
  strangers = (inside & (labels[:, None] != labels[None])).sum() / inside.sum()
  assert found.strangers <= share
  assert 0.4 * found.strangers - 0.002 < strangers < 1.8 * found.strangers + 0.002
  np.testing.assert_allclose(found.found, inside.sum() / len(codes), rtol=1e-6)
  wider = (distances <= found.radius + 1) & ~np.eye(len(codes), dtype=bool)
  assert (wider & (labels[:, None] != labels[None])).sum() / wider.sum() > 0.5 * share
  same = ~np.eye(len(codes), dtype=bool) & (labels[:, None] == labels[None])
  assert (inside & same).sum() / same.sum() > 0.9


@pytest.mark.parametrize("bits", [1, 12, 64])
def test_random_codes_have_no_near_ones(rng, bits):
  codes = np.packbits(rng.random((500, bits)) < 0.5, axis=1)
  found = radius_by_strangers(HammingIndex(codes, [""] * 500, num_bits=bits))
  assert found.radius <= bits // 5
  assert found.radius == 0 or found.strangers <= 0.05


def test_equal_codes_and_few_items():
  same = HammingIndex(np.zeros((50, 2), np.uint8), [""] * 50)
  assert radius_by_strangers(same).radius == 0
  for count in (0, 1):
    with pytest.raises(InputError, match="needs two or more"):
      radius_by_strangers(HammingIndex(np.zeros((count, 2), np.uint8), [""] * count))
  with pytest.raises(InputError, match=r"share is '0\.1', expected a number"):
    radius_by_strangers(same, share="0.1")
  with pytest.raises(InputError, match="seed is -1, expected 0 or more"):
    radius_by_strangers(same, seed=-1)
  with pytest.raises(InputError, match=r"share is 1\.5"):
    radius_by_strangers(same, share=1.5)


def test_a_sample_is_enough(rng, monkeypatch):
  from udh_jax.retrieval import strangers

  codes, _ = families(rng)
  index = HammingIndex(np.packbits(codes, axis=1), [""] * len(codes))
  whole = radius_by_strangers(index)
  monkeypatch.setattr(strangers, "_QUERIES", 300)
  monkeypatch.setattr(strangers, "_ITEMS", 900)
  assert abs(radius_by_strangers(index).radius - whole.radius) <= 2


def test_the_median_is_that_of_all_pairs(rng):
  codes, _ = families(rng, num_families=40, members=5)
  found = radius_by_strangers(HammingIndex(np.packbits(codes, axis=1), [""] * len(codes)))
  distances = (codes[:, None] != codes[None]).sum(axis=2)[~np.eye(len(codes), dtype=bool)]
  assert abs(found.median - np.median(distances)) <= 1


def test_codes_whose_distances_do_not_fit_are_refused():
  index = HammingIndex(np.zeros((2, 8192), np.uint8), ["a", "b"])
  with pytest.raises(InputError, match="have 8,192 bytes, expected at most 8,191"):
    radius_by_strangers(index)
