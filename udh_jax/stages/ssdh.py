"""Features and their structure in, a hash network out: SSDH, the base method of PSCH."""

from ml_collections import ConfigDict

from udh_jax.losses.pairs import pair_loss
from udh_jax.losses.reduction import weighted_mean
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.similarity.structure import structure_signs
from udh_jax.stages.hash_network import pairwise_network
from udh_jax.stages.structure import fitted
from udh_jax.stages.training import forward_on_views, train


def ssdh(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains codes to be as alike as the features of the frozen network say, where they say it.

  L = mean |S_ij| (u_i . u_j / c - S_ij)^2 over the pairs of a batch, S as in `structure_signs`.

  Outputs: a network whose ``variables`` are those of `HashNetwork` without a classifier.

  References:
    Yang et al., Semantic structure-based unsupervised deep hashing, IJCAI 2018. Our own: S of
    centred features, within the batch; and the start at ITQ's codes.
  """
  settings = config.ssdh
  network = pairwise_network(context, config, inputs, num_classes=0, start=settings.hash_start)
  forward = forward_on_views(network, settings, config.student.image_size)

  def loss(parameters, constants, batch, key):
    relaxed, _ = forward(parameters, constants, batch, key)
    signs = structure_signs(
      constants["features"][batch["index"]],
      constants["structure"],
      deviations=config.structure.deviations,
    )
    weights = batch["weight"]
    value = pair_loss(relaxed, signs, abs(signs), weights=weights)
    return value, {"known": weighted_mean(weighted_mean(abs(signs), weights), weights)}

  constants = {
    "features": inputs["features"]["features"],
    "structure": fitted(inputs["structure"]),
  }
  return train(context, loss, network, constants, settings=settings, seed=config.seed)


# Version 2: a hash layer that starts at random learns at the rate of fresh layers.
STAGE = Stage(
  "ssdh", ssdh, ("ssdh", "structure", "student.image_size", "bits", "seed", "dtype"), version=2
)
