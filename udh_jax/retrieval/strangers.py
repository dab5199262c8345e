"""How near is near: a radius with a stated share of strangers, from the distances alone."""

import numbers
from typing import NamedTuple

import numpy as np

from udh_jax.errors import require, whole_number
from udh_jax.retrieval.hamming import as_long_words, checked_codes
from udh_jax.retrieval.index import HammingIndex

_QUERIES, _ITEMS = 2000, 50_000  # sampled
_AT_ONCE = 1 << 22  # distances held at once


class Radius(NamedTuple):
  """A radius and what to expect within it.

  Attributes:
    radius: Largest Hamming distance.
    strangers: Share of the items found within it that are expected to be strangers, in [0, 1].
    found: How many other items an item of the index finds within it, on average.
    median: Median distance of two items, about which strangers lie.
  """

  radius: int
  strangers: float
  found: float
  median: float


def radius_by_strangers(index: HammingIndex, *, share: float = 0.05, seed: int = 0) -> Radius:
  """The largest radius within which at most a share of what is found are strangers.

  No labels are needed. Most pairs of a collection are strangers, so that the distances *between*
  strangers can be seen in its far half: those beyond the median. They are taken to lie as
  symmetrically about it as the distances of random codes do, so that as many strangers are at
  median - x as pairs are at median + x. What there is more of at small distances are pairs *within*
  something: the same scene, class or style. The expected share of strangers within a radius is the
  number of strangers up to there by this mirror image, over the number of all pairs up to there.

  Collections whose distances are skewed (a few large classes, or codes with many equal bits) have
  fewer or more strangers than stated: see docs/own_pictures.md for how far off it was on labelled
  sets.

  Args:
    index: Of at least two items.
    share: Largest share of strangers, above 0 and below 1.
    seed: Of the sample; all pairs are counted where there are few.

  Returns:
    A `Radius`. Where no radius has so few strangers, it is 0, with the share that it has.

  Raises:
    InputError: If the index has fewer than two items, its codes have more than 8,191 bytes, or the
      share is out of range.

  References:
    Our own definition, after the empirical null distribution of Efron, Large-Scale Simultaneous
    Hypothesis Testing, JASA 2004.
  """
  require(
    isinstance(share, numbers.Real) and 0 < share < 1,
    f"radius_by_strangers: share is {share!r}, expected a number above 0 and below 1.",
  )
  seed = whole_number("radius_by_strangers: seed", seed)
  require(seed >= 0, f"radius_by_strangers: seed is {seed}, expected 0 or more.")
  require(
    len(index) >= 2,
    f"radius_by_strangers: the index has {len(index)} items; a radius needs two or more.",
  )
  checked_codes("radius_by_strangers", index.codes, index.codes)
  counts = _histogram(index, seed)
  total = counts.sum()
  near = np.cumsum(counts)
  # Of an even number of steps from the median, so that its mirror image falls on whole distances.
  middle = int(np.searchsorted(near, total / 2))
  far = np.concatenate([np.cumsum(counts[::-1])[::-1], np.zeros(2 * middle + 1)])
  radii = np.arange(middle + 1)
  # One pair more than were seen: that none was seen does not prove that there are none.
  expected = (far[2 * middle - radii] + 1) / np.maximum(near[radii], 1)
  expected = np.minimum(np.where(near[radii] > 0, expected, 1), 1)
  allowed = np.flatnonzero(expected <= share)
  radius = int(allowed[-1]) if len(allowed) else 0
  return Radius(
    radius, float(expected[radius]), float(near[radius] / total * (len(index) - 1)), float(middle)
  )


def _histogram(index, seed) -> np.ndarray:
  """How many pairs of different items have each distance, float64 ``[num_bits + 1]``."""
  rng = np.random.default_rng(seed)

  def some(count):
    if len(index) <= count:
      return np.arange(len(index))
    return np.sort(rng.choice(len(index), count, replace=False))

  rows, columns = some(_QUERIES), some(_ITEMS)
  codes = as_long_words(index.codes[columns])
  counts = np.zeros(index.num_bits + 1)
  step = max(1, _AT_ONCE // len(columns))
  for start in range(0, len(rows), step):
    chunk = rows[start : start + step]
    queries = as_long_words(index.codes[chunk])
    distances = np.zeros((len(chunk), len(columns)), np.uint16)
    for word in range(codes.shape[1]):
      distances += np.bitwise_count(queries[:, word, None] ^ codes[None, :, word])
    different = chunk[:, None] != columns[None]
    counts += np.bincount(distances[different], minlength=len(counts))
  return counts
