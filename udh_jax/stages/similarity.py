"""A teacher's pair networks in, the factors of the symmetric similarity of all pairs out."""

import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.encoders.pair import pair_module
from udh_jax.losses.cross_modal import sharpness
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.similarity.cosine import unit_rows
from udh_jax.stages.features import reading_size
from udh_jax.stages.map_rows import map_rows
from udh_jax.stages.network import facts
from udh_jax.stages.pair_network import features_read, image_view, reads_features


def similarity(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """The teacher's relaxed codes tanh(alpha h) of every pair, alpha of its last epoch.

  Inputs: ``teacher``, a network, and ``features`` where it reads those of its backbone.

  Outputs: ``images`` and ``texts``, rows of unit length, ``[rows, bits]``: what
  `udh_jax.similarity.symmetric` makes the symmetric similarity of. It is never held as n x n.

  References:
    DUDCH: "latent associations of the pre-trained unsupervised teacher" rebuild a symmetric
    similarity matrix; the formula is our own.
  """
  teacher = inputs["teacher"]
  module = pair_module(facts(teacher), config.dtype)
  view = image_view(teacher, reading_size(config))
  alpha = sharpness(config.djsrh.epochs - 1)

  from_features = reads_features(teacher)
  frozen = features_read(teacher, inputs)

  def function(constants, batch):
    images = view(batch, constants["frozen"])
    outputs = module.apply(
      constants["variables"], images, batch["text"], from_features=from_features
    )
    images, texts = (unit_rows(jnp.tanh(alpha * h)) for h in outputs)
    return {"images": images, "texts": texts}

  return map_rows(
    context,
    function,
    {"variables": teacher["variables"], "frozen": frozen},
    batch_size=config.encode.batch_size,
    finish=lambda rows: rows,
    row_outputs=("images", "texts"),
    images=not from_features,
  )


STAGE = Stage(
  "similarity",
  similarity,
  ("djsrh.epochs", "features.image_sizes", "encode", "dtype"),
  free=("encode.batch_size",),
)
