"""Packed codes in, neighbours and scores out."""

from udh_jax.retrieval.asymmetric import AsymmetricNeighbours, asymmetric_search
from udh_jax.retrieval.hamming import (
  NO_NEIGHBOUR,
  Neighbours,
  RadiusHits,
  hamming_distance,
  radius_search,
  search,
)
from udh_jax.retrieval.index import HammingIndex
from udh_jax.retrieval.metrics import (
  RadiusCurve,
  RetrievalScores,
  average_precision_description,
  conventions,
  mean_average_precision,
  precision_recall_by_radius,
  retrieval_scores,
)

__all__ = [
  "NO_NEIGHBOUR",
  "AsymmetricNeighbours",
  "HammingIndex",
  "Neighbours",
  "RadiusCurve",
  "RadiusHits",
  "RetrievalScores",
  "asymmetric_search",
  "average_precision_description",
  "conventions",
  "hamming_distance",
  "mean_average_precision",
  "precision_recall_by_radius",
  "radius_search",
  "retrieval_scores",
  "search",
]
