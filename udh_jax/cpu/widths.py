"""How wide codes may be, and the type that their distances need: one rule for all kernels."""

import numpy as np

MOST_BYTES = 8191  # of a code, so that one more than its largest distance fits 16 bits


def distance_dtype(num_bytes: int) -> np.dtype:
  """The narrowest unsigned type that holds 0 .. 8 * num_bytes + 1, one more than any distance.

  Args:
    num_bytes: Of a code, 1 to `MOST_BYTES`.

  Returns:
    uint8 or uint16.
  """
  return np.dtype(np.uint8 if 8 * num_bytes + 1 <= 255 else np.uint16)
