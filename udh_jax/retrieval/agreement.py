"""How well codes agree with clusters of what they were not made from: a score without labels."""

import numpy as np

from udh_jax.errors import require
from udh_jax.retrieval.metrics import (
  RetrievalScores,
  average_precision_description,
  retrieval_scores,
)

TIES = "expected"  # or the names of the files would decide between codes
NEAREST = 10
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
  scores = _by_clusterings("agreement", queries, database, query_clusters, database_clusters)
  return np.mean([found.average_precision[:, -1] for found in scores], axis=0)


def nearest_agreement(
  queries: np.ndarray,
  database: np.ndarray,
  query_clusters: np.ndarray,
  database_clusters: np.ndarray,
) -> float:
  """Share of the items in the query's cluster among its first ten.

  Args:
    queries: As of `agreement`, and the same for the others.
    database: See there.
    query_clusters: See there.
    database_clusters: See there.

  Returns:
    Precision at `NEAREST`, ties as in `DEFINITION`: the mean over clusterings and queries, in
    [0, 1].

  Raises:
    InputError: As `agreement`.

  References:
    Our own measure, for clusters that are much finer than those of `agreement`: it tells whether
    the nearest are lost where whole clusters are gathered.
  """
  given = (queries, database, query_clusters, database_clusters)
  scores = _by_clusterings("nearest_agreement", *given, at=NEAREST)
  return float(np.mean([found.precision[0] for found in scores]))


def _by_clusterings(
  name: str,
  queries: np.ndarray,
  database: np.ndarray,
  query_clusters: np.ndarray,
  database_clusters: np.ndarray,
  *,
  at: int | None = None,
) -> list[RetrievalScores]:
  """Scores of codes by each of H clusterings."""
  require(
    query_clusters.ndim == 2
    and database_clusters.ndim == 2
    and query_clusters.shape[1] == database_clusters.shape[1] >= 1,
    f"{name}: clusters have the shapes {query_clusters.shape} and {database_clusters.shape}; "
    "expected [q, H] and [n, H] with H at least 1.",
  )
  return [
    retrieval_scores(queries, database, own, others, at=at, ties=TIES)
    for own, others in zip(query_clusters.T, database_clusters.T, strict=True)
  ]
