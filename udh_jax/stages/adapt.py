"""Pseudo labels in, out comes a backbone that is half the collection's and half what it was."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.finetune import classifier
from udh_jax.stages.network import Network, backbone_variables


def mean_of_backbones(before: Network, after: Network, share: float) -> dict:
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
    return jax.tree.map(
      lambda b, a: b + share * (a - b) if jnp.isdtype(b.dtype, "real floating") else b,
      before,
      after,
    )

  variables = mean(backbone_variables(before), backbone_variables(after))
  return {"variables": variables, "about": before["about"]}


def adapt(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains the network on pseudo labels, and takes the mean of its weights before and after.

  Training alone gathers the clusters and loses what else the network told apart; halfway there it
  keeps both. What is learned in a round does not depend on the length of codes.

  Inputs: ``teacher``, a network, and ``clustering``.

  Outputs: a network of the backbone alone.

  References:
    `udh_jax.stages.finetune`, and `mean_of_backbones`; that codes of a collection start so is our
    own.
  """
  share = config.adapt.share
  return classifier(
    context,
    config,
    inputs,
    settings=config.adapt,
    seed=config.seed + 1,
    finish=lambda trained: mean_of_backbones(inputs["teacher"], trained, share),
  )


STAGE = Stage("adapt", adapt, ("adapt", "teacher.image_size", *clusterings.FIELDS, "seed", "dtype"))
