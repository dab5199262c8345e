"""Packed codes in, neighbours and scores out."""

from udh_jax.retrieval.hamming import NO_NEIGHBOUR, Neighbours, hamming_distance, search
from udh_jax.retrieval.metrics import (
  RadiusCurve,
  average_precision_description,
  mean_average_precision,
  precision_recall_by_radius,
)

__all__ = [
  "NO_NEIGHBOUR",
  "Neighbours",
  "RadiusCurve",
  "average_precision_description",
  "hamming_distance",
  "mean_average_precision",
  "precision_recall_by_radius",
  "search",
]
