"""A network and its features in, features of several views of every image out."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.data.augmentation import augment
from udh_jax.errors import require
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages.features import as_the_backbone_made_them
from udh_jax.stages.map_rows import map_rows
from udh_jax.stages.network import backbone_of, backbone_variables, facts, preprocess

# Views are the same for every seed of a run, so that seeds can share them.
_SEED = 20


def views(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Features of random views of every image, by a network that stays as it is.

  Outputs: ``views`` float16 ``[rows, 1 + views.number, d]``, not centred: the whole image first,
  then random views. The last one is kept for comparing codes, see `kept_view`; the others are
  trained on, see `udh_jax.stages.training.random_view`.

  References:
    Our own: what a frozen network makes of a view need not be made again in every step.
  """
  network, settings = inputs["teacher"], config.views
  module, prepare = backbone_of(network, config.dtype), preprocess(network)

  def function(variables, batch):
    def one(key):
      pictures = augment(
        key, batch["image"], batch["index"], size=settings.image_size, **settings.augment
      )
      return module.apply(variables, prepare(pictures))

    keys = jax.random.split(jax.random.key(_SEED), settings.number)
    return {"views": jnp.stack([one(key).astype(jnp.float16) for key in keys], axis=1)}

  whole = jax.jit(
    lambda features, random: jnp.concatenate(
      [as_the_backbone_made_them(features)[:, None].astype(jnp.float16), random], axis=1
    )
  )

  def finish(rows):
    views = whole(dict(inputs["features"]), rows["views"])
    require(
      bool(jax.jit(lambda views: jnp.isfinite(views).all())(views)),
      f"Features of {facts(network)['source']} are not finite, or larger than float16 holds "
      "(65,504); give weights of a network that was trained.",
    )
    return {"views": views}

  return map_rows(
    context,
    function,
    backbone_variables(network),
    batch_size=config.features.batch_size,
    finish=finish,
    row_outputs=("views",),
  )


def kept_view(views: jax.Array) -> jax.Array:
  """Features of the view that is not trained on; float32 ``[rows, d]``."""
  return views[:, -1].astype(jnp.float32)


STAGE = Stage(
  "views", views, ("views", "features.batch_size", "dtype"), free=("features.batch_size",)
)
