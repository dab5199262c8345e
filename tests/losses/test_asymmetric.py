"""The asymmetric student's objective, and what DCC makes of it, against plain sums."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from asymmetric_oracle import SHARES, dense_objective, made_pairs

from udh_jax.coding.binary import sign
from udh_jax.coding.dcc import dcc
from udh_jax.losses import asymmetric
from udh_jax.losses.asymmetric import network_loss, objective
from udh_jax.similarity.symmetric import similarity_row_norms


@pytest.fixture
def made(rng):
  return made_pairs(rng)


def code_problem(images, texts, sampled, factors, weights, *, gamma):
  norms = similarity_row_norms(factors["images"], factors["texts"], weights, **SHARES)
  return asymmetric.code_problem(images, texts, sampled, factors, norms, gamma=gamma, shares=SHARES)


@pytest.mark.parametrize("gamma", [0.0, 3.0, 200.0])
def test_objective_is_the_sum_of_its_terms(made, gamma):
  factors, weights, sampled, (images, texts), codes = made
  problem = code_problem(images, texts, sampled, factors, weights, gamma=gamma)
  expected = dense_objective(*made[:3], (images, texts), codes, gamma)
  assert np.isclose(objective(codes, problem), expected, rtol=1e-4)


def test_no_dcc_sweep_raises_the_objective(made, rng):
  factors, weights, sampled, (images, texts), codes = made
  for trial in range(20):
    start = np.where(rng.normal(size=codes.shape) >= 0, 1.0, -1.0)
    problem = code_problem(images, texts, sampled, factors, weights, gamma=trial)
    values = [
      dense_objective(
        factors,
        weights,
        sampled,
        (images, texts),
        np.asarray(dcc(start, problem.linear, problem.gram, num_sweeps=sweeps)) * weights[:, None],
        trial,
      )
      for sweeps in range(4)
    ]
    assert all(after <= before + 1e-3 for before, after in itertools.pairwise(values))
    assert values[-1] < values[0]


def test_dcc_is_better_than_the_sign_of_the_outputs(made):
  factors, weights, sampled, (images, texts), codes = made
  problem = code_problem(images, texts, sampled, factors, weights, gamma=1.0)
  signs = codes.copy()
  signs[sampled] = np.asarray(sign(images + texts))
  found = dcc(np.where(signs == 0, 1, signs), problem.linear, problem.gram, num_sweeps=3)
  value = objective(np.asarray(found) * weights[:, None], problem)
  assert value < objective(signs, problem)


def test_what_networks_can_change_of_the_objective_is_their_loss(made):
  factors, weights, sampled, outputs, codes = made
  relaxed = outputs[0]
  images, texts = factors["images"], factors["texts"]
  across = images @ texts.T
  matrix = 0.4 * (0.3 * images @ images.T + 0.7 * texts @ texts.T) + 0.3 * (across + across.T)
  there = np.array([1.0, 1.0, 0.0, 1.0, 1.0])
  found = network_loss(
    jnp.asarray(relaxed),
    codes[sampled],
    (matrix @ codes)[sampled],
    codes.T @ codes,
    there,
    gamma=3.0,
    scale=10.0,
  )
  expected = 0.0
  for row in np.flatnonzero(there):
    for j in np.flatnonzero(weights):
      product = relaxed[row] @ codes[j]
      expected += product**2 - 2 * 6 * product * matrix[sampled[row], j]
    expected += 3.0 * ((codes[sampled[row]] - relaxed[row]) ** 2).sum()
  np.testing.assert_allclose(found, expected / 10 / there.sum(), rtol=1e-4)
  zero = np.zeros((6, 6))
  nothing = network_loss(relaxed, relaxed, relaxed, zero, 0 * there, gamma=1.0, scale=1.0)
  assert nothing == 0
