"""The objective of an asymmetric student: networks see some pairs, codes are learned for all."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from udh_jax.losses.reduction import weighted_mean
from udh_jax.numerics import matmul
from udh_jax.similarity.symmetric import similarity_product


class Problem(NamedTuple):
  """What the objective is made of, for networks held fixed.

  Attributes:
    linear: Q of `udh_jax.dcc`. Array of shape ``[rows, c]``.
    gram: A of it. Array of shape ``[c, c]``.
    constant: What the codes cannot change. Scalar.
  """

  linear: jax.Array
  gram: jax.Array
  constant: jax.Array


def code_problem(
  images: jax.Array,
  texts: jax.Array,
  sampled: jax.Array,
  factors: Mapping[str, jax.Array],
  row_norms: jax.Array,
  *,
  gamma: float,
  shares: Mapping[str, Any],
) -> Problem:
  """The student's objective as a function of the codes V of all pairs.

  ||U V^T - c S||_F^2 + ||G V^T - c S||_F^2 + gamma (||V_s - U||^2 + ||V_s - G||^2), where U and G
  are the networks' outputs for the sampled pairs s and S has their rows.

  Args:
    images: U. Array of shape ``[m, c]``.
    texts: G. Array of shape ``[m, c]``.
    sampled: Rows of the sampled pairs, each once. Integer array of shape ``[m]``.
    factors: ``images`` and ``texts``, of which the similarity is made, see
      `udh_jax.similarity.symmetric`.
    row_norms: `similarity_row_norms` of the training pairs. Array of shape ``[rows]``.
    gamma: Weight of the distance between codes and outputs.
    shares: Options of `similarity_product`.

  References:
    Our own, of the shape of ADSH (Jiang and Li, AAAI 2018); the form that DCC takes is Shen et al.,
    Supervised Discrete Hashing, CVPR 2015, section 3.
  """
  bits = images.shape[1]
  placed = jnp.zeros((len(row_norms), bits), images.dtype).at[sampled].set(images + texts)
  product = similarity_product(factors["images"], factors["texts"], placed, **shares)
  squares = jnp.sum(images**2) + jnp.sum(texts**2)
  return Problem(
    bits * product + gamma * placed,
    matmul(images.T, images) + matmul(texts.T, texts),
    2.0 * bits**2 * row_norms[sampled].sum() + gamma * (2 * images.size + squares),
  )


def objective(codes: jax.Array, problem: Problem) -> jax.Array:
  """The value of `code_problem` for codes; rows of 0 are left out.

  Args:
    codes: V. Array of shape ``[rows, c]``.
    problem: Of the same rows.

  Returns:
    Scalar.
  """
  quadratic = matmul(codes, problem.gram)
  return jnp.sum(codes * (quadratic - 2 * problem.linear)) + problem.constant


def network_loss(
  relaxed: jax.Array,
  codes: jax.Array,
  target: jax.Array,
  gram: jax.Array,
  weights: jax.Array,
  *,
  gamma: float,
  scale: float,
) -> jax.Array:
  """What networks can change of the objective, for codes held fixed.

  u V^T V u^T - 2 c u (S V)^T + gamma ||v - u||^2 of each row, the weighted mean, over ``scale``.

  Args:
    relaxed: Outputs u of one network. Array of shape ``[b, c]``.
    codes: Codes v of the same pairs. Array of shape ``[b, c]``.
    target: Their rows of S V. Array of shape ``[b, c]``.
    gram: V^T V over all pairs. Array of shape ``[c, c]``.
    weights: 0 leaves a row out. Array of shape ``[b]``.
    gamma: See `code_problem`.
    scale: Divides the value.

  Returns:
    Scalar; 0 if all weights are 0.

  References:
    Our own, see `code_problem`.
  """
  quadratic = jnp.sum(matmul(relaxed, gram) * relaxed, axis=1)
  linear = jnp.sum(relaxed * target, axis=1)
  apart = jnp.sum((relaxed - codes) ** 2, axis=1)
  per_row = (quadratic - 2 * relaxed.shape[1] * linear + gamma * apart) / scale
  return weighted_mean(per_row, weights)
