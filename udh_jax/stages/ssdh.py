"""Features and their structure in, a hash network out: SSDH, the base method of PSCH."""

from udh_jax.data.augmentation import augment
from udh_jax.errors import require
from udh_jax.losses.pairs import pair_loss
from udh_jax.runtime.stage import Context, Work
from udh_jax.similarity.structure import structure_signs
from udh_jax.stages.distill import start_at_itq
from udh_jax.stages.network import new_hash_network, preprocess
from udh_jax.stages.structure import fitted
from udh_jax.stages.training import train_network

FIELDS = ("ssdh", "structure", "student.image_size", "bits", "seed", "dtype")


def pairwise_network(context: Context, config, inputs, *, num_classes: int, start: str):
  """The hash network that a pair-wise method trains: module and network.

  Args:
    context: Devices and images.
    config: As of `new_hash_network`.
    inputs: ``teacher`` and ``features``.
    num_classes: Of the classifier; 0 leaves it out.
    start: Of the hash layer: "itq", as `start_at_itq` gives it, or "random".

  Raises:
    InputError: If ``start`` is another.
  """
  require(start in ("itq", "random"), f"hash_start is {start!r}; choose 'itq' or 'random'.")
  module, network = new_hash_network(context, config, inputs["teacher"], num_classes=num_classes)
  if start == "itq":
    start_at_itq(context, config, network, inputs["features"])
  return module, network


def ssdh(context: Context, config, inputs) -> Work:
  """Trains codes to be as alike as the features of the frozen network say, where they say it.

  L = mean |S_ij| (u_i . u_j / c - S_ij)^2 over the pairs of a batch, S as in `structure_signs`.

  Outputs: a network whose ``variables`` are those of `HashNetwork` without a classifier.

  References:
    Yang et al., Semantic structure-based unsupervised deep hashing, IJCAI 2018. Our own: S of
    centred features, within the batch; and the start at ITQ's codes.
  """
  settings, size = config.ssdh, config.student.image_size
  module, network = pairwise_network(
    context, config, inputs, num_classes=0, start=settings.hash_start
  )
  prepare = preprocess(network)

  def loss(parameters, constants, batch, key):
    views = prepare(augment(key, batch["image"], batch["index"], size=size, **settings.augment))
    relaxed, _ = module.apply({"params": parameters, **constants["fixed"]}, views)
    signs = structure_signs(
      constants["features"][batch["index"]],
      constants["structure"],
      deviations=config.structure.deviations,
    )
    value = pair_loss(relaxed, signs, abs(signs), weights=batch["weight"])
    return value, {"known": abs(signs).mean()}

  constants = {
    "features": inputs["features"]["features"],
    "structure": fitted(inputs["structure"]),
  }
  return train_network(context, loss, network, constants, settings=settings, seed=config.seed)
