"""Public functions inside a trace that closes over arrays whose values are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import udh_jax
from udh_jax.clustering.kmeans import kmeans, own_distances
from udh_jax.clustering.neighbours import nearest_neighbours, neighbour_embedding
from udh_jax.coding.baselines import itq
from udh_jax.coding.binary import pack_codes, sign
from udh_jax.coding.discriminant import discriminant_directions
from udh_jax.losses.classification import smoothed_cross_entropy
from udh_jax.losses.margin import highly_interrelated_loss
from udh_jax.similarity.structure import fit_half_gaussians

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(20, 6)).astype(np.float32)
CODES = np.where(RNG.normal(size=(20, 6)) > 0, 1, -1).astype(np.float32)
ONES, LABELS = np.ones(20, np.float32), RNG.integers(0, 3, 20)
NEIGHBOURS = np.asarray(nearest_neighbours(ROWS, 3))

FUNCTIONS = {
  "sign": lambda x, known: sign(known(CODES)) + x,
  "pack_codes": lambda x, known: pack_codes(known(CODES)) + (0 * x.sum()).astype(jnp.uint8),
  "dcc": lambda x, known: udh_jax.dcc(known(CODES), x, known(np.eye(6)), num_sweeps=1),
  "dcc, linear": lambda x, known: udh_jax.dcc(
    jnp.where(x > 0, 1.0, -1.0), known(ROWS), np.eye(6), num_sweeps=1
  ),
  "itq": lambda x, known: itq(x, 3, key=KEY, weights=known(ONES)),
  "discriminant_directions": lambda x, known: (
    discriminant_directions(
      x, known(LABELS[:, None]), num_clusters=3, power=0.5, weights=known(ONES)
    ).mean
  ),  # beyond two directions any are as good
  "sinkhorn": lambda x, known: udh_jax.sinkhorn(
    x, epsilon=1.0, row_marginals=known(ONES / 20), column_marginals=known(np.full(6, 1 / 6))
  ),
  "kmeans": lambda x, known: kmeans(x, 3, key=KEY, weights=known(ONES), init=known(ROWS[:3])),
  "equal_size_kmeans": lambda x, known: udh_jax.equal_size_kmeans(
    x, 3, key=KEY, weights=known(ONES)
  ),
  "own_distances": lambda x, known: own_distances(x, known(LABELS), x[:3]),
  "fit_half_gaussians": lambda x, known: fit_half_gaussians(x, weights=known(ONES)),
  "nearest_neighbours": lambda x, known: nearest_neighbours(x, 3, weights=known(ONES)),
  "neighbour_embedding": lambda x, known: (
    jnp.abs(neighbour_embedding(known(NEIGHBOURS), 1, key=KEY)) + x[:, :1]  # signs are arbitrary
  ),
  "smoothed_cross_entropy": lambda x, known: jax.grad(
    lambda x: smoothed_cross_entropy(x, known(LABELS))
  )(x),
  "highly_interrelated_loss": lambda x, known: highly_interrelated_loss(
    x, x[:3], known(LABELS), kind="softmax"
  ),
}


@pytest.mark.parametrize("known", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_known_may_be_closed_over(name, known):
  run = FUNCTIONS[name]
  cache = []  # made before the trace begins

  def recorded(array):
    cache.append(known(array))
    return cache[-1]

  outside = run(jnp.asarray(ROWS), recorded)
  rest = iter(cache)
  inside = jax.jit(lambda x: run(x, lambda array: next(rest)))(ROWS)
  for one, other in zip(jax.tree.leaves(outside), jax.tree.leaves(inside), strict=True):
    np.testing.assert_allclose(one, other, rtol=2e-4, atol=2e-4)
