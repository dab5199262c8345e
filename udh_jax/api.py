"""The public names of ``udh_jax``."""

from udh_jax.clustering.equal_size_kmeans import Clustering, equal_size_kmeans
from udh_jax.clustering.sinkhorn import SinkhornOutput, sinkhorn
from udh_jax.coding.binary import pack_codes, sign, unpack_codes
from udh_jax.coding.dcc import dcc
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.loading import load_encoder
from udh_jax.errors import InputError, TrainingError
from udh_jax.retrieval.hamming import hamming_distance, search
from udh_jax.retrieval.index import HammingIndex
from udh_jax.retrieval.metrics import mean_average_precision, retrieval_scores

__all__ = [
  "Clustering",
  "Encoder",
  "HammingIndex",
  "InputError",
  "SinkhornOutput",
  "TrainingError",
  "dcc",
  "equal_size_kmeans",
  "hamming_distance",
  "load_encoder",
  "mean_average_precision",
  "pack_codes",
  "retrieval_scores",
  "search",
  "sign",
  "sinkhorn",
  "unpack_codes",
]
