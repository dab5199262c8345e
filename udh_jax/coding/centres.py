"""Fixed codes, one a class, far from each other: what supervised codes are pulled to."""

from typing import NamedTuple

import numpy as np

from udh_jax.data.protocol import CENTRES, TIES, permutation
from udh_jax.errors import require

_DRAWS = 20


class Centres(NamedTuple):
  """Codes of the classes.

  Attributes:
    codes: Values in {-1, +1}. int8 array of shape ``[K, c]``.
    tie_break: A random code, for items whose classes are divided. int8 array of shape ``[c]``.
    source: Where the codes come from, in words.
  """

  codes: np.ndarray
  tie_break: np.ndarray
  source: str


def hadamard(order: int) -> np.ndarray:
  """Sylvester's Hadamard matrix: rows of -1 and +1, orthogonal to each other.

  Args:
    order: A power of two.

  Returns:
    int8 array of shape ``[order, order]``.

  Raises:
    InputError: If ``order`` is not a power of two.
  """
  require(
    order >= 1 and order & (order - 1) == 0,
    f"hadamard: order is {order}, expected a power of two.",
  )
  matrix = np.ones((1, 1), np.int8)
  while len(matrix) < order:
    matrix = np.block([[matrix, matrix], [matrix, -matrix]])
  return matrix


def class_centres(num_classes: int, num_bits: int, *, seed: int) -> Centres:
  """One code a class: rows of a Hadamard matrix and of its negative, or random ones.

  Where ``num_bits`` is a power of two and K at most twice that, the first K rows of [H; -H], any
  two of which differ in half of the bits or in all. Else seeded random codes with as many +1 as -1
  (one more -1 where the length is odd): the best of 20 draws, by the least distance between two.

  Args:
    num_classes: K, 1 or more.
    num_bits: c, 1 or more.
    seed: Of the random codes.

  Returns:
    The centres.

  Raises:
    InputError: If a number is less than 1, or so few bits give two classes the same code.

  References:
    Yuan et al., Central similarity quantization, CVPR 2020, algorithm 1; balanced random codes and
    draws repeated for their distance are the authors' code. Keeping the best draw is our own.
  """
  require(num_classes >= 1, f"class_centres: num_classes is {num_classes}, expected 1 or more.")
  require(num_bits >= 1, f"class_centres: num_bits is {num_bits}, expected 1 or more.")
  tie_break = np.where(permutation(num_bits, seed, TIES) < num_bits // 2, 1, -1).astype(np.int8)
  if num_bits & (num_bits - 1) == 0 and num_classes <= 2 * num_bits:
    matrix = hadamard(num_bits)
    codes = np.concatenate([matrix, -matrix])[:num_classes]
    return Centres(codes, tie_break, f"rows of a Hadamard matrix of order {num_bits}")
  draws = [
    np.stack(
      [
        np.where(permutation(num_bits, seed, CENTRES, draw, number) < num_bits // 2, 1, -1)
        for number in range(num_classes)
      ]
    )
    for draw in range(_DRAWS)
  ]
  distances = [_least_distance(codes) for codes in draws]
  best = int(np.argmax(distances))
  require(
    num_classes == 1 or distances[best] > 0,
    f"class_centres: {num_bits} bits are too few for {num_classes} classes to differ; ask for more "
    "bits.",
  )
  why = (
    f"{num_bits} bits is not a power of two"
    if num_bits & (num_bits - 1)
    else f"{num_classes} classes are more than twice {num_bits} bits"
  )
  return Centres(
    draws[best].astype(np.int8),
    tie_break,
    f"random balanced codes, at least {distances[best]} bits apart ({why}: no Hadamard matrix "
    "serves)",
  )


def _least_distance(codes):
  """Least Hamming distance between two rows."""
  codes = codes.astype(np.int32)
  apart = (codes.shape[1] - codes @ codes.T) // 2
  np.fill_diagonal(apart, codes.shape[1])
  return int(apart.min())
