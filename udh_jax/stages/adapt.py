"""Pseudo labels in, out comes a backbone that is half the collection's and half what it was."""

import functools
import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.features import centred_rows
from udh_jax.stages.finetune import classifier
from udh_jax.stages.map_rows import train_weights
from udh_jax.stages.network import Network, backbone_variables, mean_of_weights


def invariance(context: Context, views: jax.Array) -> float:
  """How alike two views of a picture are to a network: their mean cosine, of centred features.

  Args:
    context: Devices and images; training images count.
    views: Output of `udh_jax.stages.views`, with two random views at least.

  References:
    Our own measure.
  """
  centred = [
    centred_rows(context, jax.jit(lambda views, i=i: views[:, i].astype(jnp.float32))(views))[0]
    for i in (1, -1)
  ]

  @functools.partial(jax.jit, out_shardings=mesh_lib.replicated(context.mesh))
  def mean(first, second, weights):
    return jnp.sum(weights * jnp.sum(first * second, axis=1)) / jnp.sum(weights)

  return float(mean(*centred, train_weights(context)))


def in_words(found: float, limit: float) -> str:
  """Whether a network is adapted, and why.

  Args:
    found: `invariance` of the network.
    limit: ``adapt.invariance``.
  """
  verdict = f"below {limit:g}: it is adapted to these pictures."
  if found >= limit:
    verdict = f"not below {limit:g}: it knows such pictures and stays as it is."
  shown = math.floor(1000 * found) / 1000  # rounded down, so that it is not shown as the limit
  return f"To the published network two views of a picture are alike by {shown:g}, {verdict}"


def adapt(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains the network on pseudo labels, and takes the mean of its weights before and after.

  Training alone gathers the clusters and loses what else the network told apart; halfway there it
  keeps both. A network that knows such pictures gains nothing by it: one whose `invariance` is
  ``adapt.invariance`` or more stays as it is.

  Inputs: ``teacher``, a network, ``clustering``, and ``views``, which the network made.

  Outputs: a network of the backbone alone; ``invariance`` float32 [], of the network as it was; and
  ``adapted``, whether it is another network.

  References:
    `udh_jax.stages.finetune`, and `mean_of_weights`; the rest is our own, and docs/results.md has
    what it gains.
  """
  teacher, settings = inputs["teacher"], config.adapt
  found = invariance(context, inputs["views"]["views"])
  adapts = bool(mesh_lib.agreed(int(found < settings.invariance)))
  say(f"[adapt] {in_words(found, settings.invariance)}")

  before = backbone_variables(teacher)

  def outputs(variables):
    facts = {"invariance": jnp.float32(found), "adapted": jnp.int32(adapts)}
    facts = mesh_lib.replicate(context.mesh, facts)
    return {"variables": variables, "about": teacher["about"], **facts}

  def finish(trained):
    mean = jax.jit(functools.partial(mean_of_weights, share=settings.share))
    return outputs(mean(before, backbone_variables(trained)))

  if not adapts:
    return Work(finish=lambda state: outputs(before))
  given = {role: inputs[role] for role in ("teacher", "clustering")}  # pictures are read, not views
  return classifier(context, config, given, settings=settings, seed=config.seed + 1, finish=finish)


STAGE = Stage("adapt", adapt, ("adapt", "teacher.image_size", *clusterings.FIELDS, "seed", "dtype"))


def was_adapted(network: Network) -> bool:
  """Whether what `adapt` handed on is another network than it was given."""
  return bool(int(network["adapted"]))


def on_adapted(stage: Stage, adapted: str, before: str | None = None) -> Stage:
  """A named stage that works on the adapted network, where it was adapted.

  Args:
    stage: With its inputs.
    adapted: Name of the stage `adapt`.
    before: Name of the same stage on the network as it was, whose outputs it has where the network
      was left alone; of None it has none but that this was so.
  """

  def build(context, config, inputs):
    given = {role: value for role, value in inputs.items() if role not in ("adapted", "before")}
    work = stage.build(context, config, given)
    if was_adapted(inputs["adapted"]):
      return work
    same = dict(inputs.get("before", {"adapted": inputs["adapted"]["adapted"]}))
    rows = tuple(name for name in work.row_outputs if name in same)
    return Work(finish=lambda state: same, row_outputs=rows)

  roles = {"adapted": adapted} | ({"before": before} if before else {})
  return stage._replace(build=build, inputs={**stage.inputs, **roles})
