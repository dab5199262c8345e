"""The type of distances, at the widths where it changes."""

import numpy as np
import pytest

from udh_jax.cpu.widths import MOST_BYTES, distance_dtype


@pytest.mark.parametrize("num_bytes", [1, 31, 32, MOST_BYTES])
def test_it_is_the_narrowest_that_holds_one_more_than_any_distance(num_bytes):
  largest, found = 8 * num_bytes + 1, distance_dtype(num_bytes)
  assert largest <= np.iinfo(found).max
  assert found == np.min_scalar_type(largest)


def test_one_byte_more_would_not_fit():
  assert np.iinfo(np.uint16).max < 8 * (MOST_BYTES + 1) + 1
