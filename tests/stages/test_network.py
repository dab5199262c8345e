"""What of a network is trained, and at which rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.models.heads import HashNetwork
from udh_jax.models.registry import create_backbone
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.stages.network import new_network, variables_of

ABOUT = {
  "backbone": "resnet18",
  "padding": "symmetric",
  "mean": (0.5,) * 3,
  "std": (0.25,) * 3,
  "labels_used": "none",
  "source": "random",
  "sha256": "",
}


@pytest.fixture(scope="module")
def network():
  context = Context(mesh_lib.make_mesh(jax.devices()[:1]), None)
  module = HashNetwork(create_backbone("resnet18"), 8, 3)
  return new_network(context, module, ABOUT, (1, 32, 32, 3), seed=0)


@pytest.mark.parametrize("trained", ["all", "last", "head"])
def test_the_parameters_are_split_into_trained_and_fixed_and_joined_again(network, trained):
  split = network._replace(trained=trained)
  backbone = split.parameters.get("backbone", {})
  assert {"hash", "head"} <= split.parameters.keys()
  if trained == "all":
    assert backbone.keys() == network.variables["params"]["backbone"].keys()
  elif trained == "last":
    assert backbone and all(name.startswith("layer4") for name in backbone)
  else:
    assert not backbone
  joined = variables_of(split.parameters, split.fixed)
  jax.tree.map(np.testing.assert_array_equal, joined, dict(network.variables))


@pytest.mark.slow
def test_less_is_computed_where_less_is_trained(network):
  def flops(trained):
    split = network._replace(trained=trained)

    def loss(parameters):
      relaxed, _ = network.module.apply(
        variables_of(parameters, split.fixed), jnp.ones((2, 32, 32, 3))
      )
      return relaxed.sum()

    return jax.jit(jax.grad(loss)).lower(split.parameters).cost_analysis()["flops"]

  whole, last, head = (flops(trained) for trained in ("all", "last", "head"))
  assert head < last < 0.8 * whole


def test_every_random_part_is_fresh_until_it_is_given_values(network):
  assert network.fresh == {"backbone", "hash", "head"}
  backbone = {kind: tree["backbone"] for kind, tree in network.variables.items()}
  teacher = {"variables": jax.tree.map(lambda value: value + 1, backbone), "about": network.about}
  context = Context(mesh_lib.make_mesh(jax.devices()[:1]), None)
  started = new_network(context, network.module, ABOUT, (1, 32, 32, 3), seed=0, teacher=teacher)
  expected = {
    kind: {**network.variables[kind], "backbone": given}
    for kind, given in teacher["variables"].items()
  }
  jax.tree.map(np.testing.assert_array_equal, dict(started.variables), expected)
  assert started.fresh == {"hash", "head"}
  given = started.with_parts(hash=started.variables["params"]["hash"])
  assert given.fresh == {"head"}
