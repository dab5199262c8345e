"""Every product that feeds a decision is made in full float32, whatever the device does by default.

Tests run on a CPU, where the default is as exact. So the programs are read instead: no product of
floating numbers may leave its precision to the device.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans
from udh_jax.clustering.kmeans import kmeans, own_distances
from udh_jax.clustering.sinkhorn import sinkhorn, transport_plan
from udh_jax.coding import baselines, dcc
from udh_jax.losses import asymmetric, centres, contrastive, cross_modal, margin, pairs
from udh_jax.similarity import cosine, parts, structure, symmetric

KEY = jax.random.key(0)
ROWS, DIM, BITS = 24, 6, 4
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
CODES = np.where(X[:, :BITS] >= 0, 1, -1).astype(np.float32)
UNIT = X / np.linalg.norm(X, axis=1, keepdims=True)
LABELS = np.arange(ROWS) % 3
SHARES = {"image_share": 0.4, "cross_share": 0.3}
FACTORS = {"images": UNIT, "texts": UNIT[::-1]}
HASH = baselines.LinearHash(X[0], X[:DIM, :BITS])


def student(images, texts, codes):
  problem = asymmetric.code_problem(
    images, texts, jnp.arange(ROWS), FACTORS, jnp.ones(ROWS), gamma=1.0, shares=SHARES
  )
  return asymmetric.objective(codes, problem)


PROGRAMS = {
  "equal_size_kmeans": (lambda x: equal_size_kmeans(x, 3, key=KEY), X),
  "equal_size_kmeans, in chunks": (
    lambda x: equal_size_kmeans(x, 3, key=KEY, chunk_size=7, min_size=2, num_restarts=2),
    X,
  ),
  "kmeans": (lambda x: kmeans(x, 3, key=KEY, chunk_size=7), X),
  "own_distances": (lambda x: own_distances(x, jnp.asarray(LABELS), jnp.asarray(X[:3])), X),
  "sinkhorn": (lambda x: sinkhorn(x, epsilon=0.1), X),
  "transport_plan": (lambda x: transport_plan(x, x[:, 0], x[0], epsilon=0.1), X),
  "dcc": (lambda v, q: dcc(v, q, jnp.eye(BITS), num_sweeps=1), CODES, CODES),
  "lsh": (lambda x: baselines.lsh(x, BITS, key=KEY), X),
  "pca_rotation": (lambda x: baselines.pca_rotation(x, BITS, key=KEY), X),
  "itq": (lambda x: baselines.itq(x, BITS, key=KEY), X),
  "encode": (lambda x: baselines.encode(HASH, x), X),
  "cosines": (cosine.cosines, X, X),
  "part_similarity": (parts.part_similarity, np.tile(X[:, None], (1, 2, 1))),
  "fit_half_gaussians": (lambda x: structure.fit_half_gaussians(x, chunk_size=8), X),
  "structure_signs": (
    lambda x: structure.structure_signs(x, structure.fit_half_gaussians(jnp.asarray(X))),
    X,
  ),
  "similarity_product": (
    lambda a, b, x: symmetric.similarity_product(a, b, x, **SHARES),
    UNIT,
    UNIT,
    CODES,
  ),
  "similarity_row_norms": (
    lambda a, b: symmetric.similarity_row_norms(a, b, jnp.ones(ROWS), **SHARES),
    UNIT,
    UNIT,
  ),
  "student's objective": (student, CODES, CODES, CODES),
  "network_loss": (
    lambda u, v: asymmetric.network_loss(
      u, v, v, jnp.eye(BITS), jnp.ones(ROWS), gamma=1.0, scale=1.0
    ),
    CODES,
    CODES,
  ),
  "majority_centres": (
    lambda t: centres.majority_centres(jnp.asarray(CODES[:3]), t, jnp.ones(BITS)),
    LABELS[:, None] == np.arange(3),
  ),
  "nt_xent": (
    lambda a, b: contrastive.nt_xent(a, b, temperature=0.3),
    X,
    X,
  ),
  "joint_semantics": (
    lambda a, b: cross_modal.joint_semantics(a, b, beta=0.6, eta=0.4, mu=1.5),
    X,
    X,
  ),
  "reconstruction_loss": (cross_modal.reconstruction_loss, X, X, X @ X.T),
  "highly_interrelated_loss": (
    lambda u: margin.highly_interrelated_loss(
      u, jnp.asarray(X[:3]), jnp.asarray(LABELS), kind="arcface", scale=8.0, margin=0.2
    ),
    X,
  ),
  "pair_loss": (pairs.pair_loss, X, X @ X.T, np.ones((ROWS, ROWS), np.float32)),
}


def dots(jaxpr):
  """Every product in a program and in the programs inside it."""
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      yield equation
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda leaf: isinstance(leaf, jax.extend.core.ClosedJaxpr | Jaxpr)
    ):
      inner = getattr(value, "jaxpr", value)
      if isinstance(inner, Jaxpr):
        yield from dots(inner)


Jaxpr = jax.extend.core.Jaxpr
HIGHEST = (lax.Precision.HIGHEST, lax.Precision.HIGHEST)


def imprecise(function, *arrays):
  """How many products there are, and those of floating numbers left to the device's default."""
  found = list(dots(jax.make_jaxpr(function)(*map(jnp.asarray, arrays)).jaxpr))
  wrong = [
    str(equation)
    for equation in found
    if jnp.issubdtype(equation.invars[0].aval.dtype, jnp.floating)
    and equation.params["precision"] != HIGHEST
  ]
  return len(found), wrong


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_product_leaves_its_precision_to_the_device(name):
  function, *arrays = PROGRAMS[name]
  _, wrong = imprecise(function, *arrays)
  assert not wrong


def test_the_reading_finds_products_inside_of_loops_and_branches():
  def program(x, precision):
    product = functools.partial(jnp.matmul, precision=precision)
    inside = jax.jit(lambda x: lax.fori_loop(0, 3, lambda _, x: product(x, x), x))
    return lax.cond(x[0, 0] > 0, inside, lambda x: x, x)

  square = jnp.ones((2, 2))
  assert imprecise(lambda x: program(x, None), square)[0] == 1
  assert len(imprecise(lambda x: program(x, None), square)[1]) == 1
  assert imprecise(lambda x: program(x, lax.Precision.HIGHEST), square) == (1, [])
  assert imprecise(lambda x: equal_size_kmeans(x, 3, key=KEY), jnp.asarray(X))[0] > 5
