"""Pseudo labels in, a hash network out: PSCH, with part similarity within the batch."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from udh_jax.losses import quantisation_loss, smoothed_cross_entropy
from udh_jax.losses.pairs import pair_loss
from udh_jax.runtime.stage import Context, Inputs, Stage, Work
from udh_jax.similarity.parts import part_similarity, pseudo_label_pairs
from udh_jax.similarity.structure import structure_signs
from udh_jax.stages import clusterings
from udh_jax.stages.guard import halfway
from udh_jax.stages.hash_network import pairwise_network
from udh_jax.stages.pseudo_labels import confident_labels
from udh_jax.stages.structure import fitted
from udh_jax.stages.training import forward_on_views, made_views, train, whole_pictures


def classifier_of(config: ConfigDict) -> str:
  """What PSCH's classifier reads; configurations of earlier versions do not say."""
  return config.psch.get("classifier", "codes")


def psch(
  context: Context,
  config: ConfigDict,
  inputs: Inputs,
  *,
  seed_offset: int = 0,
  alone: bool = False,
) -> Work:
  """Trains codes to be as alike as parts of images are within a pseudo class, and apart between.

  L = mean w_ij (u_i . u_j / c - T_ij)^2 + alpha CE(pseudo label) + lambda_q mean (u - sign(u))^2,
  the first over the pairs of a batch, T and w as in `pseudo_label_pairs`, the second over confident
  images, with a head for each clustering that reads what ``psch.classifier`` says: codes u, or
  features. Where ``psch.unsure`` is "structure", pairs of which no clustering has both images
  confident have SSDH's S and |S| for T and w; where ``psch.similarity`` is "one", T is 1 within a
  pseudo class.

  Outputs: a network whose ``variables`` are those of `HashNetwork`.

  Args:
    context: Devices and images.
    config: Of the stage.
    inputs: ``teacher``, ``features``, ``clustering`` and those of `pairwise_network`.
    seed_offset: Another one gives other batches and views.
    alone: Whether the hash layer is trained alone, see `layer`.

  References:
    PSCH: learning from pseudo labels and from soft multi-part similarity, with codes of different
    classes apart, is the paper's (its abstract); the formula is our own.
  """
  settings = config.psch
  network = pairwise_network(
    context,
    config,
    inputs,
    num_classes=clusterings.num_logits(config),
    start=settings.hash_start,
    classifier=classifier_of(config),
  )
  forward = forward_on_views(network, settings, config.student.image_size)
  constants = {
    "labels": confident_labels(inputs["clustering"]),
    **made_views(inputs),
    **(whole_pictures(inputs["features"]) if alone else {}),
  }
  if settings.similarity == "parts":
    constants["parts"] = inputs["features"]["parts"]
  if settings.unsure == "structure":
    constants["features"] = inputs["features"]["features"]
    constants["structure"] = fitted(inputs["structure"])

  def loss(parameters, constants, batch, key):
    relaxed, logits = forward(parameters, constants, batch, key)
    weights, rows = batch["weight"], batch["index"]
    labels = constants["labels"][rows]
    if settings.similarity == "parts":
      similarity = part_similarity(constants["parts"][rows])
    else:
      similarity = jnp.ones((len(rows), len(rows)), jnp.float32)
    targets, known = pseudo_label_pairs(labels, similarity, apart=settings.apart)
    if settings.unsure == "structure":
      signs = structure_signs(
        constants["features"][rows],
        constants["structure"],
        deviations=config.structure.deviations,
      )
      targets, known = jax.tree.map(
        lambda sure, other: jnp.where(known > 0, sure, other), (targets, known), (signs, abs(signs))
      )
    pairs = pair_loss(relaxed, targets, known, weights=weights)
    by_head, own, confident = clusterings.confident_rows(logits, labels, weights, config)
    classification = smoothed_cross_entropy(by_head, own, weights=confident)
    quantisation = quantisation_loss(relaxed, weights=weights)
    value = (
      pairs
      + settings.classification_weight * classification
      + settings.quantisation_weight * quantisation
    )
    return value, {
      "pairs": pairs,
      "classification": classification,
      "quantisation": quantisation,
    }

  def finish(trained):
    if not alone:
      return trained
    variables = trained["variables"]
    parameters = dict(variables["params"])
    parameters["hash"] = halfway(network.parameters["hash"], parameters["hash"])
    return {**trained, "variables": {**variables, "params": parameters}}

  return train(
    context,
    loss,
    network,
    constants,
    settings=settings,
    seed=config.seed + seed_offset,
    finish=finish,
  )


def layer(context: Context, config: ConfigDict, inputs: Inputs, *, seed_offset: int = 0) -> Work:
  """Trains the hash layer as `psch` does, alone: on features of whole pictures, made before.

  Steps, batches and rates are those of the section ``layer``; the classifier reads the codes, for
  on features it would teach the layer nothing. The layer that is handed on is the mean of the
  trained one and of its start, as on a network that stays as it is (`udh_jax.stages.guard`).

  Args:
    context: Devices and images.
    config: Of the stage.
    inputs: As of `psch`; ``features`` are of ``teacher``.
    seed_offset: See `psch`.

  Returns:
    As `psch`.
  """
  config = config.copy_and_resolve_references()
  config.psch.update(config.layer, trained="head", classifier="codes")
  return psch(context, config, inputs, seed_offset=seed_offset, alone=True)


_FIELDS = (
  "psch",
  "structure",
  *clusterings.FIELDS,
  "student.image_size",
  "bits",
  "seed",
  "dtype",
)

# Version 2: a hash layer that starts at random learns at the rate of fresh layers.
STAGE = Stage(
  "psch",
  psch,
  _FIELDS,
  version=2,
)
LAYER = Stage("psch_layer", layer, (*_FIELDS, "layer"))
