import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from udh_jax.stages.training import make_optimizer


def test_what_starts_at_random_has_a_learning_rate_of_its_own():
  settings = ConfigDict(
    {"steps": 100, "learning_rate": 1e-3, "head_learning_rate": 1e-1, "weight_decay": 0.0}
  )
  parameters = {"backbone": jnp.ones((2, 2)), "hash": jnp.ones((2, 2)), "head": jnp.ones((2, 2))}
  optimizer = make_optimizer(settings, frozenset({"hash", "head"}))
  state = optimizer.init(parameters)
  for _ in range(5):  # the warm-up is over
    updates, state = optimizer.update(parameters, state, parameters)
    parameters = optax.apply_updates(parameters, updates)
  moved = {name: float(1 - value[0, 0]) for name, value in parameters.items()}
  np.testing.assert_allclose(moved["head"] / moved["backbone"], 100, rtol=0.01)
  np.testing.assert_allclose(moved["hash"], moved["head"], rtol=1e-6)
