"""Pairs in, an image and a text network out that rebuild the pairs' joint semantics: DJSRH."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from udh_jax.losses.cross_modal import joint_semantics, reconstruction_loss, sharpness
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.features import as_the_backbone_made_them
from udh_jax.stages.pair_network import (
  new_pair_network,
  train_pairs,
  training_outputs,
)


def epoch_of(step: jax.Array, *, batch_size: int, num_rows: int, num_epochs: int) -> jax.Array:
  """The epoch that a step begins in, from 0 on: step * batch_size // num_rows.

  The product, which does not fit int32 after 2^31 rows, is not made.

  Args:
    step: From 0 on. int32 scalar.
    batch_size: Rows of a step.
    num_rows: Rows of an epoch.
    num_epochs: How many there are; the last one's number is the largest that is found.

  Returns:
    int32 scalar.
  """
  starts = [-(-epoch * num_rows // batch_size) for epoch in range(num_epochs)]
  return jnp.searchsorted(np.asarray(starts, np.int32), step, side="right") - 1


def djsrh(context: Context, config: ConfigDict, inputs: Inputs, *, bits: int) -> Work:
  """Trains both networks so that cosines of relaxed codes are the joint semantics of the batch.

  L = MSE(cos(B_I, B_T), S) + l [MSE(cos(B_I, B_I), S) + MSE(cos(B_T, B_T), S)],
  B = tanh(alpha h) with alpha = sqrt(epoch + 1); S is `joint_semantics` of frozen features.

  Inputs: none where images are features; else ``backbone``, a network, and its ``features``.

  Outputs: a network whose ``variables`` are those of `PairNetwork`.

  References:
    Su et al., Deep joint-semantics reconstructing hashing, ICCV 2019. Our own: features that are
    given are scaled (see `PairNetwork`); the affinity reads them as they are.
  """
  settings = config.djsrh
  network = new_pair_network(context, config, settings, inputs, bits=bits)
  forward = training_outputs(network, settings)
  epochs = {"num_rows": len(context.dataset.splits.train), "num_epochs": settings.epochs}

  def loss(parameters, constants, batch, key):
    outputs = forward(parameters, constants, batch, key)
    epoch = epoch_of(batch["step"], batch_size=settings.batch_size, **epochs)
    images, texts = (jnp.tanh(sharpness(epoch) * h) for h in outputs)
    weights = batch["weight"]
    target = joint_semantics(
      _affinity_features(constants["frozen"], batch),
      batch["text"],
      beta=settings.beta,
      eta=settings.eta,
      mu=settings.mu,
      weights=weights,
    )
    between = reconstruction_loss(images, texts, target, weights=weights)
    within = sum(reconstruction_loss(x, x, target, weights=weights) for x in (images, texts))
    return between + settings.within_weight * within, {"between": between, "within": within}

  constants = {"frozen": dict(inputs.get("features", {}))}
  return train_pairs(context, loss, network, constants, settings=settings, seed=config.seed)


def _affinity_features(frozen, batch):
  """What the image affinity is made from: features as the backbone made them, or as given."""
  return as_the_backbone_made_them(frozen, batch["index"]) if frozen else batch["image"]


# Give it ``bits`` by `Stage.with_options`.
STAGE = Stage("djsrh", djsrh, ("djsrh", "seed", "dtype"))
