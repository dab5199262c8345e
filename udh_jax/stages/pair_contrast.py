"""Pairs in, an image and a text network out that tell pairs apart: a competing method."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.losses import quantisation_loss
from udh_jax.losses.contrastive import nt_xent
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.pair_network import (
  features_read,
  new_pair_network,
  train_pairs,
  training_outputs,
)


def pair_contrast(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains the code of an image to agree with its own text's, and to differ from others.

  L = NT-Xent of the relaxed codes tanh(h) of images and texts + lambda_q mean (u - sign(u))^2 of
  both.

  Inputs: none where images are features; else ``backbone``, a network, and its ``features``.

  Outputs: a network whose ``variables`` are those of `PairNetwork`.

  References:
    The kind of Hu et al., UCCH, IEEE TPAMI 2023: contrast between the modalities. Our own: the
    batch gives the other pairs (they keep a memory bank and add a ranking loss).
  """
  settings = config.contrast
  network = new_pair_network(context, config, settings, inputs, bits=config.bits)
  forward = training_outputs(network, settings)

  def loss(parameters, constants, batch, key):
    outputs = forward(parameters, constants, batch, key)
    images, texts = (jnp.tanh(h) for h in outputs)
    weights = batch["weight"]
    contrastive = nt_xent(
      images, texts, temperature=settings.temperature, weights=weights, rows=batch["index"]
    )
    quantisation = sum(quantisation_loss(u, weights=weights) for u in (images, texts))
    value = contrastive + settings.quantisation_weight * quantisation
    return value, {"contrastive": contrastive, "quantisation": quantisation}

  constants = {"frozen": features_read(network.stored, inputs)}
  return train_pairs(context, loss, network, constants, settings=settings, seed=config.seed)


# Version 2: another copy of a pair in a batch is not its negative.
STAGE = Stage("pair_contrast", pair_contrast, ("contrast", "bits", "seed", "dtype"), version=2)
