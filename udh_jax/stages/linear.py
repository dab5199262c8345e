"""A teacher and a baseline's hash function in, a hash network out: nothing is trained."""

from ml_collections import ConfigDict

from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.baselines import fitted
from udh_jax.stages.hash_network import linear_layer
from udh_jax.stages.network import backbone_variables


def linear(context: Context, config: ConfigDict, inputs: Inputs, *, name: str) -> Work:
  """The teacher with a baseline for its hash layer.

  Inputs: ``teacher``, ``features`` of it and ``baselines`` of those.

  Outputs: a network whose ``variables`` are those of `HashNetwork` without a classifier.

  Args:
    context: Devices and images.
    config: Not read.
    inputs: See above.
    name: One of `udh_jax.stages.baselines.BASELINES`.
  """
  del config
  teacher = inputs["teacher"]
  layer = linear_layer(context, inputs["features"], fitted(inputs["baselines"], name))
  variables = {kind: {"backbone": tree} for kind, tree in backbone_variables(teacher).items()}
  variables["params"]["hash"] = mesh_lib.replicate(context.mesh, layer)
  return Work(finish=lambda state: {"variables": variables, "about": teacher["about"]})


# Give it ``name`` by `Stage.with_options`.
STAGE = Stage("linear", linear, ())
