"""Agreement of codes with clusters, by hand and against a plain loop."""

import itertools

import numpy as np
import pytest

from udh_jax.coding.binary import pack_codes
from udh_jax.errors import InputError
from udh_jax.retrieval.agreement import agreement, nearest_agreement


def packed(signs):
  return np.asarray(pack_codes(np.asarray(signs, np.int8)))


def plain(queries, database, query_clusters, database_clusters):
  """Average precision of signs by clusters, the mean over all orders of the database."""
  orders = list(itertools.permutations(range(len(database))))
  scores = np.zeros((*query_clusters.shape, len(orders)))
  for number, order in enumerate(map(list, orders)):
    for row, code in enumerate(queries):
      nearest = np.argsort((code != database[order]).sum(axis=1), kind="stable")
      for h in range(query_clusters.shape[1]):
        cluster = query_clusters[row, h]
        relevant = (database_clusters[order, h] == cluster)[nearest] & (cluster >= 0)
        precision = np.cumsum(relevant) / np.arange(1, len(order) + 1)
        scores[row, h, number] = (precision * relevant).sum() / max(relevant.sum(), 1)
  return scores.mean(axis=(1, 2))


def test_it_is_the_mean_of_average_precision_over_clusterings_and_orders(rng):
  signs = rng.choice([-1, 1], (10, 3))
  clusters = rng.integers(-1, 2, (10, 3))
  found = agreement(packed(signs[:4]), packed(signs[4:]), clusters[:4], clusters[4:])
  expected = plain(signs[:4], signs[4:], clusters[:4], clusters[4:])
  assert expected.min() > 0 and expected.max() < 1
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_first_ten_of_the_querys_cluster_over_all_orders(rng):
  signs = rng.choice([-1, 1], (16, 3))
  clusters = rng.integers(-1, 2, (16, 3))
  found = nearest_agreement(packed(signs[:3]), packed(signs[3:]), clusters[:3], clusters[3:])
  shares = []
  for code, own in zip(signs[:3], clusters[:3], strict=True):
    distances = (code != signs[3:]).sum(axis=1)
    for h in range(3):
      relevant = (clusters[3:, h] == own[h]) & (own[h] >= 0)
      # Of those at the tenth's distance each is among the ten with the same probability.
      last = np.sort(distances)[9]
      sure, tied = distances < last, distances == last
      shares.append((relevant[sure].sum() + (10 - sure.sum()) * relevant[tied].mean()) / 10)
  assert 0 < np.mean(shares) < 1
  np.testing.assert_allclose(found, np.mean(shares), rtol=1e-6)


def test_codes_that_are_the_clusters_agree_wholly(rng):
  clusters = rng.integers(0, 4, (50, 1))
  signs = np.where(np.arange(4) == clusters, 1, -1)
  found = agreement(packed(signs), packed(signs), clusters, clusters)
  np.testing.assert_array_equal(found, 1.0)


@pytest.mark.parametrize("shape", [(5,), (5, 0), (5, 2)])
def test_invalid_clusters_are_named(rng, shape):
  codes = packed(rng.choice([-1, 1], (5, 8)))
  with pytest.raises(InputError, match="agreement: clusters have the shapes"):
    agreement(codes, codes, np.zeros(shape, int), np.zeros((5, 1), int))
