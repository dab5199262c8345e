import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.encoders.batches import filled_up


@pytest.mark.parametrize(
  ("count", "size"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (17, 24), (64, 64)]
)
def test_batches_have_few_sizes(rng, count, size):
  rows = rng.integers(0, 256, (count, 2, 3), dtype=np.uint8)
  found = filled_up(rows)
  assert found.shape == (size, 2, 3) and found.dtype == np.uint8
  np.testing.assert_array_equal(found[:count], rows)
  assert (found[count:] == rows[0]).all()
  own = jnp.asarray(rows)
  assert filled_up(own) is own
