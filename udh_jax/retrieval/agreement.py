"""How well codes agree with clusters of what they were not made from: a score without labels."""

import numpy as np

from udh_jax.errors import require
from udh_jax.retrieval.metrics import average_precision_description, retrieval_scores

TIES = "expected"  # or the names of the files would decide between codes
DEFINITION = average_precision_description(ties=TIES)


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
    Of each query over the whole database, as `DEFINITION` says, the mean over the clusterings.
    Float array of shape ``[q]``, in [0, 1].

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
    retrieval_scores(queries, database, own, others, ties=TIES)
    for own, others in zip(query_clusters.T, database_clusters.T, strict=True)
  ]
  return np.mean([found.average_precision[:, -1] for found in scores], axis=0)
