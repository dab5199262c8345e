"""Made codes and features that benchmarks measure on."""

import numpy as np


def codes(
  rng: np.random.Generator, prototypes: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Codes around one prototype a class, three bits in ten flipped: tied and mixed as real ones.

  Args:
    rng: Source of randomness.
    prototypes: bool array of shape ``[classes, bits]``.
    size: Number of codes.

  Returns:
    Packed codes and classes.
  """
  num_bits = prototypes.shape[1]
  labels = rng.integers(len(prototypes), size=size)
  packed = np.empty((size, num_bits // 8), np.uint8)
  for start in range(0, size, 1 << 18):
    rows = slice(start, start + (1 << 18))
    flips = rng.random((len(labels[rows]), num_bits), np.float32) < 0.3
    packed[rows] = np.packbits(prototypes[labels[rows]] ^ flips, axis=1)
  return packed, labels


def features(rng: np.random.Generator, size: int, dim: int) -> np.ndarray:
  """Normal features with a coarse structure along their first axis, float32 ``[size, dim]``."""
  rows = rng.standard_normal((size, dim), dtype=np.float32)
  rows[:, 0] += rng.choice(5, size).astype(np.float32) * 3
  return rows
