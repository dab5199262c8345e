"""DHIH's family of losses: logits of `udh_jax.losses.margin`, with a quantisation term."""

from udh_jax.losses.margin import annealing_weight, highly_interrelated_loss
from udh_jax.losses.regularisers import quantisation_loss
from udh_jax.losses.types import PointWiseLoss


def _terms(relaxed, classes, labels, step, weights, settings):
  annealing = annealing_weight(
    step,
    start=settings.annealing_start,
    rate=settings.annealing_rate,
    least=settings.annealing_least,
  )
  classification = highly_interrelated_loss(
    relaxed,
    classes["codes"],
    labels,
    kind=settings.name,
    scale=settings.scale,
    margin=settings.margin,
    annealing=annealing,
    weights=weights,
  )
  return classification, quantisation_loss(relaxed, weights=weights)


def _member(kind, **fields):
  return PointWiseLoss(f"DHIH, {kind}", _terms, fields)


# The values are ours, chosen as docs/results.md tells.
MEMBERS = {
  "scale": _member("scale", scale=2.0),
  "l_softmax": _member("l_softmax", margin=2, annealing_rate=5.0, annealing_least=1.0),
  "a_softmax": _member("a_softmax", margin=4, annealing_rate=5.0),
  "cosface": _member("cosface", scale=16.0, margin=0.2),
  "arcface": _member("arcface", scale=16.0, margin=0.2),
}
# The limit of the family, and a competing method.
SOFTMAX = PointWiseLoss("Softmax", _terms, {"quantisation_weight": 0.03})
