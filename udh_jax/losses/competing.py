"""Losses of competing methods with labels.

They stand on our hash layer with tanh: GreedyHash's has none, OrthoHash's batch normalisation
instead. The default weights and margins were chosen by us, as docs/method.md says; their authors'
code has a weight of .1 (GreedyHash), a margin of .2 (OrthoHash), and for CSQ a weight of .05 and a
term of pairs besides, which is left out here.
"""

import math

from udh_jax.losses.centres import central_similarity_loss, greedy_penalty, majority_centres
from udh_jax.losses.contrastive import straight_through_sign
from udh_jax.losses.labels import label_targets
from udh_jax.losses.margin import highly_interrelated_loss
from udh_jax.losses.regularisers import quantisation_loss
from udh_jax.losses.types import PointWiseLoss


def _greedyhash(relaxed, classes, labels, step, weights, settings):
  del step, settings
  codes = straight_through_sign(relaxed)
  classification = highly_interrelated_loss(
    codes, classes["codes"], labels, kind="softmax", weights=weights
  )
  return classification, greedy_penalty(relaxed, weights=weights)


def _orthohash(relaxed, classes, labels, step, weights, settings):
  del step
  classification = highly_interrelated_loss(
    relaxed,
    classes["codes"],
    labels,
    kind="cosface",
    scale=math.sqrt(relaxed.shape[1]),
    margin=settings.margin,
    weights=weights,
  )
  return classification, quantisation_loss(relaxed, weights=weights)


def _csq(relaxed, classes, labels, step, weights, settings):
  del step, settings
  targets = label_targets(labels, len(classes["codes"]))
  centres = majority_centres(classes["codes"], targets, classes["tie_break"])
  labelled = targets.any(axis=1) * weights
  classification = central_similarity_loss(relaxed, centres, weights=labelled)
  return classification, quantisation_loss(relaxed, weights=weights)


GREEDYHASH = PointWiseLoss("GreedyHash", _greedyhash, {"quantisation_weight": 0.01})
ORTHOHASH = PointWiseLoss(
  "OrthoHash", _orthohash, {"margin": 0.3, "quantisation_weight": 0.0}, fixed_codes=True
)
CSQ = PointWiseLoss("CSQ", _csq, {"quantisation_weight": 1e-4}, fixed_codes=True)
