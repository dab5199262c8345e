"""How well codes agree with clusters of what they were not made from: a score without labels."""

import numpy as np

from udh_jax.errors import require
from udh_jax.retrieval.metrics import retrieval_scores


def agreement(
  queries: np.ndarray,
  database: np.ndarray,
  query_clusters: np.ndarray,
  database_clusters: np.ndarray,
) -> np.ndarray:
  """Average precision of codes where an item is relevant that is in the query's cluster.

  Args:
    queries: Packed codes. uint8 array of shape ``[q, bytes]``.
    database: uint8 array of shape ``[n, bytes]``.
    query_clusters: The queries' clusters by H clusterings, >= 0; -1 is none. Integer array of shape
      ``[q, H]``.
    database_clusters: The items'. Integer array of shape ``[n, H]``.

  Returns:
    The mean over the clusterings, of each query. Float array of shape ``[q]``, in [0, 1]; the whole
    database, denominator retrieved, ties by index, a query without a relevant item counts 0.

  Raises:
    InputError: If shapes disagree or there is no query, item or clustering.

  References:
    Our own measure. The clusters have to be independent of the codes: of another view, with other
    seeds. docs/results.md says how often it names the codes that labels name.
  """
  require(
    query_clusters.ndim == 2
    and database_clusters.ndim == 2
    and query_clusters.shape[1] == database_clusters.shape[1] >= 1,
    f"agreement: clusters have the shapes {query_clusters.shape} and {database_clusters.shape}; "
    "expected [q, H] and [n, H] with H at least 1.",
  )
  scores = [
    retrieval_scores(queries, database, own, others).average_precision[:, -1]
    for own, others in zip(query_clusters.T, database_clusters.T, strict=True)
  ]
  return np.mean(scores, axis=0)
