"""Agreement of codes with clusters, by hand and against a plain loop."""

import numpy as np
import pytest

from udh_jax.coding.binary import pack_codes
from udh_jax.errors import InputError
from udh_jax.retrieval.agreement import agreement


def packed(signs):
  return np.asarray(pack_codes(np.asarray(signs, np.int8)))


def plain(queries, database, query_clusters, database_clusters):
  scores, within = np.zeros((2, *query_clusters.shape))
  for h, others in enumerate(database_clusters.T):
    for row, (code, cluster) in enumerate(zip(queries, query_clusters[:, h], strict=True)):
      distance = (code != database).sum(axis=1)
      order = np.argsort(distance, kind="stable")
      relevant = (others == cluster)[order] & (cluster >= 0)
      within[row, h] = relevant[distance[order] <= 2].sum() / max((distance <= 2).sum(), 1)
      precision = np.cumsum(relevant) / np.arange(1, len(order) + 1)
      scores[row, h] = (precision * relevant).sum() / max(relevant.sum(), 1)
  return scores.mean(axis=1), within.mean()


def test_it_is_the_mean_over_clusterings_of_map_and_of_precision_within_the_radius(rng):
  signs = rng.choice([-1, 1], (60, 6))
  clusters = rng.integers(-1, 4, (60, 3))
  found = agreement(packed(signs[:13]), packed(signs[13:]), clusters[:13], clusters[13:])
  ranking, within = plain(signs[:13], signs[13:], clusters[:13], clusters[13:])
  np.testing.assert_allclose(found.average_precision, ranking, rtol=1e-6)
  assert found.radius_precision == pytest.approx(within, rel=1e-6) and within > 0


def test_codes_that_are_the_clusters_agree_wholly(rng):
  clusters = rng.integers(0, 4, (50, 1))
  signs = np.where(np.arange(4) == clusters, 1, -1)
  found = agreement(packed(signs), packed(signs), clusters, clusters)
  np.testing.assert_array_equal(found.average_precision, 1.0)


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 2)])
def test_invalid_clusters_are_named(rng, shape):
  codes = packed(rng.choice([-1, 1], (5, 8)))
  with pytest.raises(InputError, match="agreement: clusters have the shapes"):
    agreement(codes, codes, np.zeros(shape, int), np.zeros((5, 1), int))
