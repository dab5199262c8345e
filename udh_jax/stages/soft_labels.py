"""A fine-tuned teacher in, soft labels out, with how far each can be trusted."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.models.heads import Classifier
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.stages import clusterings
from udh_jax.stages.features import centred_rows, reading_size
from udh_jax.stages.map_rows import map_rows
from udh_jax.stages.network import backbone_of, plain_view
from udh_jax.stages.training import augmented_views


def agreement(first: jax.Array, second: jax.Array) -> jax.Array:
  """How far two predictions of one image agree: their cosine.

  Args:
    first: Probabilities. Array of shape ``[b, H, K]``.
    second: The same images' probabilities from another view. Array of shape ``[b, H, K]``.

  Returns:
    The mean over the H clusterings, array of shape ``[b]``, in [0, 1].

  References:
    Our own measure of label noise; the paper's abstract only says that noise is reduced.
  """
  norms = jnp.linalg.norm(first, axis=2) * jnp.linalg.norm(second, axis=2)
  return jnp.mean((first * second).sum(axis=2) / norms, axis=1)


def soft_labels(context: Context, config: ConfigDict, inputs: Inputs) -> Work:
  """Predictions of the teacher for every image, from a plain and an augmented view.

  Outputs: ``probabilities`` ``[rows, H, K]``, the mean of both views' softmax(z / tau) for each
  clustering; ``confidence`` ``[rows]``, the `agreement` of both views; ``features`` ``[rows, d]``
  of the plain view, centred and of unit length, with the ``length`` ``[rows]`` and the ``centre``
  ``[d]`` they had before. Where the backbone stayed as it is and has made its ``views``, these are
  read in place of images, and its features are those of an earlier stage.

  References:
    UDH-ECC, stage 2: "the predictive probability distribution produced from the fine-tuned teacher
    network as the soft pseudo labels"; temperature and confidence are our own.
  """
  teacher, settings, size = inputs["teacher"], config.soft_labels, config.teacher.image_size
  module = Classifier(backbone_of(teacher, config.dtype), clusterings.num_logits(config))
  plain = plain_view(teacher, reading_size(config))
  augmented = augmented_views(teacher, config.finetune, size)
  key = jax.random.key(config.seed)

  def outputs(logits, other):
    logits, other = (clusterings.heads(z, config) for z in (logits, other))
    softened = [jax.nn.softmax(z / settings.temperature) for z in (logits, other)]
    return {
      "probabilities": (softened[0] + softened[1]) / 2,
      "confidence": agreement(jax.nn.softmax(logits), jax.nn.softmax(other)),
    }

  if "views" in inputs:

    @jax.jit
    def of_views(variables, views):
      logits = (
        module.apply(variables, views[:, view].astype(jnp.float32), from_features=True)[0]
        for view in (0, 1)
      )
      return outputs(*logits)

    return Work(
      finish=lambda state: of_views(teacher["variables"], inputs["views"]["views"]),
      row_outputs=("probabilities", "confidence"),
    )

  def function(variables, batch):
    logits, features = module.apply(variables, plain(batch["image"]))
    other, _ = module.apply(variables, augmented(batch, key))
    return {**outputs(logits, other), "features": features}

  def finish(rows):
    scaled, lengths, centre = centred_rows(context, rows["features"])
    return rows | {"features": scaled, "length": lengths, "centre": centre}

  return map_rows(
    context,
    function,
    teacher["variables"],
    batch_size=settings.batch_size,
    finish=finish,
    row_outputs=("probabilities", "confidence", "features", "length"),
  )


STAGE = Stage(
  "soft_labels",
  soft_labels,
  (
    "soft_labels",
    "finetune.augment",
    "features.image_sizes",
    "teacher.image_size",
    *clusterings.FIELDS,
    "seed",
    "dtype",
  ),
  free=("soft_labels.batch_size",),
)
