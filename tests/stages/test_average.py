"""The mean of networks, leaf by leaf."""

import jax
import numpy as np
import pytest
from by_hand import config_of, context_of, finished, teacher_of

from udh_jax.stages import average


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("devices", [1, 8])
def test_every_weight_is_the_mean_over_the_networks(rng, count, devices):
  context = context_of(devices, size=16, train=np.arange(16))
  teacher = teacher_of(context)
  networks = {}
  for number in range(count):
    moved = jax.tree.map(
      lambda leaf: leaf + rng.normal(size=leaf.shape).astype(np.float32),
      teacher["variables"]["params"],
    )
    fixed = {"statistics": {"mean": np.full(2, number)}}
    networks[f"network_{number + 1}"] = {
      "variables": {**fixed, "params": moved},
      "about": teacher["about"],
    }
  found = finished(average.STAGE.build(context, config_of("psch"), networks))
  all_parameters = [network["variables"]["params"] for network in networks.values()]
  expected = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *all_parameters)
  jax.tree.map(
    lambda ours, theirs: np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5),
    found["variables"]["params"],
    expected,
  )
  assert found["variables"]["statistics"]["mean"].max() == 0  # the first's
  assert found["about"] is networks["network_1"]["about"]
