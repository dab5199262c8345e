"""Packed codes in, neighbours and scores out."""

from udh_jax.retrieval.hamming import NO_NEIGHBOUR, Neighbours, hamming_distance, search
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
  "HammingIndex",
  "Neighbours",
  "RadiusCurve",
  "RetrievalScores",
  "average_precision_description",
  "conventions",
  "hamming_distance",
  "mean_average_precision",
  "precision_recall_by_radius",
  "retrieval_scores",
  "search",
]
