"""A teacher in, a hash network out that tells images apart by two views of each: CIBHash."""

from ml_collections import ConfigDict

from udh_jax.losses.contrastive import bernoulli_divergence, nt_xent, straight_through_sign
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.hash_network import new_hash_network
from udh_jax.stages.training import forward_on_views, made_views, train


def contrast(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Trains codes of two views of an image to agree, and of different images to differ.

  L = NT-Xent of the codes b = sign(u), straight-through, + lambda (KL(p || q) + KL(q || p)) / 2 of
  the chances (1 + u) / 2 of both views.

  Outputs: a network whose ``variables`` are those of `HashNetwork` without a classifier.

  References:
    Qiu et al., CIBHash, IJCAI 2021. Our own: the hash function is one layer, and the backbone,
    which they do not train, is trained too unless ``contrast.trained`` is "head"; then views are
    those that the stage `udh_jax.stages.views` has made.
  """
  settings = config.contrast
  network = new_hash_network(context, config, inputs["teacher"], num_classes=0)
  forward = forward_on_views(network, settings, config.student.image_size)

  def loss(parameters, constants, batch, key):
    first, _ = forward(parameters, constants, batch, key)
    second, _ = forward(parameters, constants, batch, key, other=True)
    weights = batch["weight"]
    contrastive = nt_xent(
      straight_through_sign(first),
      straight_through_sign(second),
      temperature=settings.temperature,
      weights=weights,
      rows=batch["index"],
    )
    divergence = bernoulli_divergence((1 + first) / 2, (1 + second) / 2, weights=weights)
    value = contrastive + settings.divergence_weight * divergence
    return value, {"contrastive": contrastive, "divergence": divergence}

  constants = made_views(inputs)
  return train(context, loss, network, constants, settings=settings, seed=config.seed)


# Version 3: the hash layer, which starts at random, learns at the rate of fresh layers; the second
# view has another key. Version 4: another copy of an image in a batch is not its negative.
STAGE = Stage(
  "contrast",
  contrast,
  ("contrast", "student.image_size", "bits", "seed", "dtype"),
  free=("contrast.chunk_size",),
  version=4,
)
