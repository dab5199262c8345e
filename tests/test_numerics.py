"""Products that lead to labels, codes, thresholds and starts are made in full float32.

An accelerator rounds the factors of float32 products to fewer bits by default: enough to change a
sign or a nearest centroid. On a CPU nothing shows, so that programs are read, not run.
"""

import ast
import functools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans
from udh_jax.clustering.kmeans import kmeans
from udh_jax.clustering.sinkhorn import sinkhorn
from udh_jax.coding import baselines, dcc
from udh_jax.encoders.image import codes_of
from udh_jax.encoders.pair import image_codes_of, pair_module, text_codes_of
from udh_jax.losses import centres, cross_modal, margin, nt_xent
from udh_jax.losses.asymmetric import code_problem, network_loss, objective
from udh_jax.losses.pairs import pair_loss
from udh_jax.models.heads import Classifier, HashNetwork, PairNetwork
from udh_jax.models.parts import attention_maps, part_vectors
from udh_jax.models.registry import create_backbone
from udh_jax.numerics import at_least_float32, matmul, with_fixed_signs
from udh_jax.similarity.cosine import cosines
from udh_jax.similarity.parts import part_similarity
from udh_jax.similarity.structure import HalfGaussians, fit_half_gaussians, structure_signs
from udh_jax.similarity.symmetric import similarity_product, similarity_row_norms
from udh_jax.stages.features import centre_and_normalise

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "udh_jax"


def products(function, *arguments):
  """The precision of every product in the program of ``function``, inner programs included."""
  return list(_products(jax.make_jaxpr(function)(*arguments).jaxpr))


def _products(jaxpr):
  for equation in jaxpr.eqns:
    if equation.primitive.name == "dot_general":
      yield equation.params["precision"]
    for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        yield from _products(inner)


def is_full(precision):
  return precision is not None and set(precision) == {lax.Precision.HIGHEST}


class Pixels(nn.Module):
  """A backbone without a product of its own."""

  @nn.compact
  def __call__(self, images):
    return images.reshape(len(images), -1)


ROWS, OTHER = jnp.linspace(-1, 1, 40).reshape(8, 5), jnp.linspace(-2, 1, 40).reshape(8, 5) ** 3
SIGNS = jnp.sign(ROWS + 0.01)
ONES, KEY = jnp.ones(8), jax.random.key(0)
IMAGES = jnp.ones((8, 1, 2, 3))
SHARES = {"image_share": 0.5, "cross_share": 0.5}
FACTORS = {"images": ROWS, "texts": OTHER}
FITTED = HalfGaussians(0.5, 0.1, 0.1)


def trained(network, *inputs):
  """Outputs and gradients of a network."""

  def loss(variables):
    return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(network.apply(variables, *inputs)))

  return jax.value_and_grad(loss)(jax.jit(network.init)(KEY, *inputs))


def codes_turn(codes, images, texts):
  problem = code_problem(images, texts, jnp.arange(8), FACTORS, ONES, gamma=1.0, shares=SHARES)
  return objective(codes, problem), dcc(codes, problem.linear, problem.gram, num_sweeps=1)


def fitted(baseline):
  """The program that fits a baseline, with its codes."""

  def program(rows):
    return baselines.encode(baseline(rows, 4, key=KEY), rows)

  return lambda: jax.jit(program)(ROWS)


PROGRAMS = {
  "mean of the features": lambda: centre_and_normalise(ROWS, ONES),
  "cosines": lambda: cosines(ROWS, OTHER),
  "similarity of parts": lambda: part_similarity(ROWS.reshape(4, 2, 5)),
  "vectors of parts": lambda: part_vectors(
    jnp.ones((2, 3, 3, 4)), attention_maps(jnp.ones((2, 3, 3, 4)), groups=2)
  ),
  "spread of distances": lambda: jax.jit(fit_half_gaussians)(ROWS, weights=ONES),
  "signs of distances": lambda: structure_signs(ROWS, FITTED),
  "symmetric similarity": lambda: similarity_product(ROWS, OTHER, SIGNS, **SHARES),
  "its norms": lambda: similarity_row_norms(ROWS, OTHER, ONES, **SHARES),
  "codes of the student": lambda: jax.jit(codes_turn)(SIGNS, ROWS, OTHER),
  "networks of the student": lambda: jax.grad(
    lambda u: network_loss(u, SIGNS, OTHER, jnp.eye(5), ONES, gamma=1.0, scale=1.0)
  )(ROWS),
  "hash network": lambda: trained(HashNetwork(Pixels(), 4, 3), IMAGES),
  "classifier": lambda: trained(Classifier(Pixels(), 3), IMAGES),
  "pair network on features": lambda: trained(PairNetwork(4, hidden=3), ROWS, OTHER),
  "pair network on pictures": lambda: trained(
    PairNetwork(4, hidden=3, backbone=Pixels()), IMAGES, ROWS
  ),
  "joint semantics": lambda: cross_modal.joint_semantics(ROWS, OTHER, beta=0.5, eta=0.5, mu=1.0),
  "reconstruction": lambda: cross_modal.reconstruction_loss(ROWS, OTHER, jnp.eye(8)),
  "contrast": lambda: nt_xent(ROWS, OTHER, temperature=0.3),
  "pairs": lambda: pair_loss(ROWS, jnp.eye(8), jnp.eye(8)),
  "majority of centres": lambda: centres.majority_centres(
    SIGNS[:3], jnp.ones((8, 3), bool), jnp.ones(5)
  ),
  "k-means": lambda: kmeans(ROWS, 3, key=KEY, num_restarts=1, max_iterations=2),
  "k-means, in chunks": lambda: jax.jit(functools.partial(kmeans, chunk_size=3), static_argnums=1)(
    ROWS, 3, key=KEY
  ),
  "equal-size k-means": lambda: jax.jit(lambda x: equal_size_kmeans(x, 3, key=KEY))(ROWS),
  "equal-size k-means, in chunks": lambda: jax.jit(
    lambda x: equal_size_kmeans(x, 3, key=KEY, chunk_size=3, min_size=2, num_restarts=2)
  )(ROWS),
  "Sinkhorn": lambda: jax.jit(lambda x: sinkhorn(x, epsilon=0.1))(ROWS),
  "lsh": fitted(baselines.lsh),
  "pca": fitted(baselines.pca_rotation),
  "itq": fitted(baselines.itq),
  **{
    f"margin, {kind}": functools.partial(
      margin.margin_logits, ROWS, OTHER[:3], jnp.ones((8, 3), bool), kind=kind, margin=1
    )
    for kind in margin.KINDS
  },
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_decided_on_comes_from_products_in_full_float32(name):
  found = products(PROGRAMS[name])
  assert found, "there is a product"
  assert all(map(is_full, found)), found


def test_a_product_with_the_default_precision_is_noticed():
  assert [is_full(p) for p in products(jax.jit(lambda: ROWS @ ROWS.T))] == [False]
  inner = lambda: lax.scan(lambda c, x: (c @ ROWS.T @ ROWS, x), ROWS, ONES)  # noqa: E731
  assert [is_full(p) for p in products(inner)] == [False, False]


def test_a_product_of_our_own_is_full():
  assert all(map(is_full, products(matmul, ROWS, ROWS.T)))
  np.testing.assert_allclose(matmul(ROWS, OTHER.T), np.asarray(ROWS) @ OTHER.T, rtol=1e-5)


@pytest.mark.parametrize(("given", "expected"), [("bfloat16", "float32"), ("int8", "float32")])
def test_means_are_of_float32_at_least(given, expected):
  x = at_least_float32(jnp.asarray([1, 2], given))
  assert x.dtype == expected and x.tolist() == [1, 2]


def about(backbone):
  return {
    "backbone": backbone,
    "padding": "symmetric",
    "dtype": "float32",
    "image_size": 8,
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "bits": 4,
    "hidden": 6,
    "dropout": 0.0,
  }


def test_encoders_end_in_full_float32():
  pictures = np.zeros((2, 8, 8, 3), np.uint8)
  network = create_backbone("small_convnet")
  backbone = jax.eval_shape(network.init, KEY, jnp.ones((1, 8, 8, 3)))
  inside = products(network.apply, backbone, jnp.ones((2, 8, 8, 3)))
  hash_layer = {"kernel": jnp.ones((128, 4)), "bias": jnp.ones(4)}
  variables = {"backbone": backbone, "hash": hash_layer}
  found = products(lambda v: codes_of(v, pictures, about("small_convnet")), variables)
  assert len(found) > len(inside) and is_full(found[-1])
  for name, shown, images in (
    ("small_convnet", jnp.ones((1, 8, 8, 3)), pictures),
    ("", ROWS[:1], ROWS[:2]),
  ):
    module = pair_module(about(name), "float32")
    variables = jax.eval_shape(module.init, KEY, shown, ROWS[:1])
    of_images = products(lambda v: image_codes_of(v, images, about(name)), variables)  # noqa: B023
    of_texts = products(lambda v: text_codes_of(v, ROWS[:2], about(name)), variables)  # noqa: B023
    assert is_full(of_images[-1])
    assert len(of_texts) == 2 and all(map(is_full, of_texts))
    if not name:
      assert len(of_images) == 2 and all(map(is_full, of_images))


# Files that may hold products with the default precision, and why.
EXCEPTIONS = {
  "models/convolution.py": "backbones: their speed is an accelerator's reason to be",
  "models/inverted_residual.py": "backbones",
  "models/layers.py": "backbones",
  "coding/centres.py": "NumPy, whole numbers",
  "duplicates/looks.py": "NumPy",
  "stages/pair_network.py": "NumPy",
  "retrieval/profile.py": "NumPy, whole numbers",
  "retrieval/sharded.py": "counts, whole numbers",
}
MAKERS = {"dot", "vdot", "matmul", "einsum", "tensordot", "inner", "dot_general", "Dense"}


def default_products(text: str) -> list[int]:
  """Lines of products without ``precision``; `udh_jax.numerics.matmul` is called by its name."""
  lines = []
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
      lines.append(node.lineno)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
      named = {keyword.arg for keyword in node.keywords}
      if node.func.attr in MAKERS and not named & {"precision", None}:
        lines.append(node.lineno)
  return lines


def test_no_file_but_those_listed_has_a_product_of_default_precision():
  found = {
    f"{name}:{line}"
    for path in SOURCE.rglob("*.py")
    if (name := path.relative_to(SOURCE).as_posix()) not in EXCEPTIONS
    for line in default_products(path.read_text())
  }
  assert not found, "use udh_jax.numerics.matmul"
  assert all(default_products((SOURCE / name).read_text()) for name in EXCEPTIONS)


def test_a_product_is_found_however_it_is_written():
  text = "a @ b\njnp.dot(a, b)\nnn.Dense(3)(x)\njnp.einsum('ij', a, precision='highest')\nmatmul(a)"
  assert default_products(text) == [1, 2, 3]


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_signs_of_vectors_are_those_of_their_largest_entries(kind):
  vectors = kind(np.array([[0.5, -3.0, 0.0], [-2.0, 1.0, 0.0]], np.float32))
  found = with_fixed_signs(vectors)
  assert type(found) is type(vectors) and found.dtype == np.float32
  np.testing.assert_array_equal(found, [[-0.5, 3.0, 0.0], [2.0, -1.0, 0.0]])
  np.testing.assert_array_equal(with_fixed_signs(-vectors), found)
