"""Features in, a hash network out whose bits halve every batch: BiHalf."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.coding.balance import half_codes
from udh_jax.losses.contrastive import straight_through
from udh_jax.losses.pairs import pair_loss
from udh_jax.losses.reduction import weighted_mean
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.similarity.cosine import cosines
from udh_jax.stages.hash_network import pairwise_network
from udh_jax.stages.training import forward_on_views, train, whole_pictures


def bihalf(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains balanced codes to have the cosines that the frozen network's features have.

  L = mean (b_i . b_j / c - cos(f_i, f_j))^2 over the pairs of a batch + gamma / 2 mean (u - b)^2,
  b = `half_codes` of the batch, straight-through.

  Outputs: a network whose ``variables`` are those of `HashNetwork` without a classifier.

  References:
    Li and van Gemert, AAAI 2021, and their code, whose backward pass adds gamma (u - b) / (m c):
    the gradient of our second term. Our own: cosines of centred features, all pairs of a batch
    where their code takes every image once, tanh, and what ``bihalf.trained`` allows besides the
    hash layer, which is all that they train.
  """
  settings = config.bihalf
  network = pairwise_network(context, config, inputs, num_classes=0, start=settings.hash_start)
  forward = forward_on_views(network, settings, config.student.image_size)

  def loss(parameters, constants, batch, key):
    relaxed, _ = forward(parameters, constants, batch, key)
    weights, features = batch["weight"], constants["features"][batch["index"]]
    halves = half_codes(relaxed, weights=weights)
    targets = cosines(features, features)
    codes = straight_through(relaxed, halves)
    similarity = pair_loss(codes, targets, jnp.ones_like(targets), weights=weights)
    distance = weighted_mean(jnp.mean((relaxed - halves) ** 2, axis=1), weights)
    value = similarity + settings.entropy_weight / 2 * distance
    return value, {"similarity": similarity, "distance": distance}

  constants = {"features": inputs["features"]["features"]}
  if settings.trained == "head":
    constants |= whole_pictures(inputs["features"])
  return train(context, loss, network, constants, settings=settings, seed=config.seed)


STAGE = Stage("bihalf", bihalf, ("bihalf", "student.image_size", "bits", "seed", "dtype"))
