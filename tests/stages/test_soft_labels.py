import jax.numpy as jnp
import numpy as np

from udh_jax.stages.soft_labels import agreement


def test_views_agree_fully_with_themselves_and_not_at_all_with_another_class():
  certain = jnp.eye(3)[:, None]
  np.testing.assert_allclose(agreement(certain, certain), 1.0)
  np.testing.assert_allclose(agreement(certain, certain[jnp.array([1, 2, 0])]), 0.0)
