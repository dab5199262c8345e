"""Codes of classes: far from each other, the same for a seed, and said where they come from."""

import numpy as np
import pytest
from scipy.linalg import hadamard as scipy_hadamard

from udh_jax.coding.centres import class_centres, hadamard
from udh_jax.data.protocol import CENTRES, permutation
from udh_jax.errors import InputError


@pytest.mark.parametrize("order", [1, 2, 16, 64])
def test_sylvesters_matrix_is_scipys(order):
  np.testing.assert_array_equal(hadamard(order), scipy_hadamard(order))


@pytest.mark.parametrize(("classes", "bits"), [(10, 16), (16, 16), (21, 16), (32, 16), (10, 64)])
def test_hadamard_centres_are_half_of_the_bits_apart_or_all(classes, bits):
  centres = class_centres(classes, bits, seed=0)
  assert "Hadamard matrix of order" in centres.source
  products = centres.codes.astype(int) @ centres.codes.T
  assert set(np.unique(products[~np.eye(classes, dtype=bool)])) <= {0, -bits}


@pytest.mark.parametrize(
  ("classes", "bits", "words"),
  [(10, 12, "12 bits is not a power of two"), (40, 16, "40 classes are more than twice 16 bits")],
)
def test_where_there_is_no_hadamard_matrix_random_balanced_codes_are_used_and_said(
  classes, bits, words
):
  centres = class_centres(classes, bits, seed=0)
  assert words in centres.source and "random" in centres.source
  np.testing.assert_array_equal(centres.codes.sum(axis=1), 0)
  apart = (bits - centres.codes.astype(int) @ centres.codes.T) // 2
  least = apart[~np.eye(classes, dtype=bool)].min()
  assert least > 0 and f"at least {least} bits apart" in centres.source
  again, other = (class_centres(classes, bits, seed=seed) for seed in (0, 1))
  np.testing.assert_array_equal(again.codes, centres.codes)
  assert (other.codes != centres.codes).any()


def test_ties_are_broken_by_a_balanced_code():
  tie_break = class_centres(10, 16, seed=0).tie_break
  assert tie_break.sum() == 0 and set(tie_break) == {-1, 1}


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: class_centres(100, 3, seed=0), "3 bits are too few for 100 classes"),
    (lambda: class_centres(0, 8, seed=0), "num_classes is 0"),
    (lambda: class_centres(4, 0, seed=0), "num_bits is 0"),
    (lambda: hadamard(12), "order is 12, expected a power of two"),
  ],
)
def test_bad_input_is_refused_in_one_line(call, message):
  with pytest.raises(InputError, match=message) as error:
    call()
  assert "\n" not in str(error.value)


def test_of_the_random_draws_the_one_farthest_apart_is_kept():
  # By hand, from the words of the seed: 20 draws, each code balanced, the first best one.
  for seed in range(5):
    draws = []
    for draw in range(20):
      orders = np.stack([permutation(12, seed, CENTRES, draw, k) for k in range(10)])
      draws.append(np.where(orders < 6, 1, -1))
    least = [(12 - (d @ d.T)[~np.eye(10, dtype=bool)].max()) // 2 for d in draws]
    expected = draws[int(np.argmax(least))]
    np.testing.assert_array_equal(class_centres(10, 12, seed=seed).codes, expected)
  odd = class_centres(5, 7, seed=0)
  assert (odd.codes.sum(axis=1) == -1).all() and odd.tie_break.sum() == -1
