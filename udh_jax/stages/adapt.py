"""Pseudo labels in, out comes a backbone that is half the collection's and half what it was."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.finetune import classifier
from udh_jax.stages.network import Network, backbone_variables


def mean_of_backbones(before: Network, after: Network, share: float) -> dict[str, Any]:
  """A network of the backbone alone, whose weights are a mean of those of two.

  Args:
    before: A network, whose facts the mean has.
    after: The same network, trained.
    share: Of ``after``, from 0 to 1.

  References:
    Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.
  """

  @jax.jit
  def mean(before, after):
    return jax.tree.map(lambda b, a: b + share * (a - b), before, after)

  variables = mean(backbone_variables(before), backbone_variables(after))
  return {"variables": variables, "about": before["about"]}


def in_words(itq: float, limit: float) -> str:
  """Whether a network is adapted, and why.

  Args:
    itq: Output of `adapt`.
    limit: ``adapt.agreement``.
  """
  verdict = f"below {limit:g}: it is adapted to these pictures."
  if itq >= limit:
    verdict = f"not below {limit:g}: it knows such pictures and stays as it is."
  return (
    f"ITQ's codes on the published network agree by {itq:.2f} with clusters of another view, "
    f"{verdict}"
  )


def adapt(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains the network on pseudo labels, and takes the mean of its weights before and after.

  Training alone gathers the clusters and loses what else the network told apart; halfway there it
  keeps both. A network that knows such pictures loses by it: where ITQ's codes agree with the
  clusters of another view by ``adapt.agreement`` or more, it stays as it is.

  Inputs: ``teacher``, a network, ``clustering``, and ``discriminant``, which compared ITQ's codes.

  Outputs: a network of the backbone alone; ``itq`` float32 [], the agreement of ITQ's codes in the
  mean over lengths and numbers of clusters; and ``adapted``, whether it is another network.

  References:
    `udh_jax.stages.finetune`, and `mean_of_backbones`; the rest is our own, and docs/results.md has
    what it gains.
  """
  teacher, settings = inputs["teacher"], config.adapt
  itq = float(np.asarray(inputs["discriminant"]["agreement"])[:, -1].mean())
  adapts = bool(mesh_lib.agreed(int(itq < settings.agreement)))
  say(f"[adapt] {in_words(itq, settings.agreement)}")

  def outputs(network):
    facts = {"itq": jnp.float32(itq), "adapted": jnp.int32(adapts)}
    return {**network, **mesh_lib.replicate(context.mesh, facts)}

  def finish(trained):
    return outputs(mean_of_backbones(teacher, trained, settings.share))

  if not adapts:
    same = {"variables": backbone_variables(teacher), "about": teacher["about"]}
    return Work(finish=lambda state: outputs(same))
  return classifier(context, config, inputs, settings=settings, seed=config.seed + 1, finish=finish)


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
      was left alone; None has none.
  """

  def build(context, config, inputs):
    given = {role: value for role, value in inputs.items() if role not in ("adapted", "before")}
    work = stage.build(context, config, given)
    if was_adapted(inputs["adapted"]):
      return work
    same = dict(inputs.get("before", {}))
    rows = tuple(name for name in work.row_outputs if name in same)
    return Work(finish=lambda state: same, row_outputs=rows)

  roles = {"adapted": adapted} | ({"before": before} if before else {})
  return stage._replace(build=build, inputs={**stage.inputs, **roles})
