"""Agreement of codes with clusters, by hand and against a plain loop."""

import numpy as np
import pytest

from udh_jax.coding.binary import pack_codes
from udh_jax.errors import InputError
from udh_jax.retrieval.agreement import agreement


def packed(signs):
  return np.asarray(pack_codes(np.asarray(signs, np.int8)))


def plain(queries, database, query_clusters, database_clusters):
  scores = []
  for own, others in zip(query_clusters.T, database_clusters.T, strict=True):
    for code, cluster in zip(queries, own, strict=True):
      order = np.argsort((code != database).sum(axis=1), kind="stable")
      relevant = (others == cluster)[order] & (cluster >= 0)
      precision = np.cumsum(relevant) / np.arange(1, len(order) + 1)
      scores.append((precision * relevant).sum() / max(relevant.sum(), 1))
  return np.mean(scores)


def test_it_is_the_mean_over_clusterings_of_map(rng):
  signs = rng.choice([-1, 1], (60, 12))
  clusters = rng.integers(-1, 4, (60, 3))
  found = agreement(packed(signs[:13]), packed(signs[13:]), clusters[:13], clusters[13:])
  assert found == pytest.approx(plain(signs[:13], signs[13:], clusters[:13], clusters[13:]))


def test_codes_that_are_the_clusters_agree_wholly(rng):
  clusters = rng.integers(0, 4, (50, 1))
  signs = np.where(np.arange(4) == clusters, 1, -1)
  assert agreement(packed(signs), packed(signs), clusters, clusters) == 1.0


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 2)])
def test_invalid_clusters_are_named(rng, shape):
  codes = packed(rng.choice([-1, 1], (5, 8)))
  with pytest.raises(InputError, match="agreement: clusters have the shapes"):
    agreement(codes, codes, np.zeros(shape, int), np.zeros((5, 1), int))
