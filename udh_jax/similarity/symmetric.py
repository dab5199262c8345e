"""The symmetric similarity of image-text pairs, by its products alone: never n x n.

S = (1 - l) [b A A^T + (1 - b) B B^T] + l (A B^T + B A^T) / 2, where the rows of A and B are a
teacher's outputs for the images and the texts of the pairs, of unit length. Its values lie in
[-1, 1].
"""

import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.numerics import at_least_float32, matmul
from udh_jax.sharding import psum


def _mixed(image_part, text_part, image_share, cross_share):
  """What A and B are multiplied by from the right, given A^T X and B^T X."""
  own, cross = 1 - cross_share, cross_share / 2
  return (
    own * image_share * image_part + cross * text_part,
    own * (1 - image_share) * text_part + cross * image_part,
  )


def similarity_product(
  images: jax.Array,
  texts: jax.Array,
  matrix: jax.Array,
  *,
  image_share: float,
  cross_share: float,
  axis_name: str | None = None,
) -> jax.Array:
  """S X for the symmetric similarity S of n pairs.

  Args:
    images: A, rows of unit length or 0. Array of shape ``[n, d]``.
    texts: B, the same. Array of shape ``[n, d]``.
    matrix: X; rows of 0 leave their pairs out. Array of shape ``[n, c]``.
    image_share: b, in [0, 1].
    cross_share: l, in [0, 1].
    axis_name: Mapped axis that the rows of all three are split over.

  Returns:
    float32 array of shape ``[n, c]`` (float64 stays).

  Raises:
    InputError: If the shapes disagree or a share is outside [0, 1].

  References:
    DUDCH: a symmetric similarity matrix rebuilt from the teacher's associations is the paper's;
    the formula is our own (the abstract is silent).
  """
  require(
    images.ndim == 2 and images.shape == texts.shape and len(matrix) == len(images),
    f"similarity: images, texts and matrix have shapes {images.shape}, {texts.shape} and "
    f"{matrix.shape}, expected [n, d], [n, d] and [n, c].",
  )
  for name, value in (("image_share", image_share), ("cross_share", cross_share)):
    require(0 <= value <= 1, f"similarity: {name} is {value}, expected 0 to 1.")
  images, texts, matrix = map(at_least_float32, (images, texts, matrix))
  parts = matmul(images.T, matrix), matmul(texts.T, matrix)  # [d, c] each
  image_part, text_part = psum(parts, axis_name)
  left, right = _mixed(image_part, text_part, image_share, cross_share)
  return matmul(images, left) + matmul(texts, right)


def similarity_row_norms(
  images: jax.Array,
  texts: jax.Array,
  weights: jax.Array,
  *,
  image_share: float,
  cross_share: float,
  axis_name: str | None = None,
) -> jax.Array:
  """sum_j w_j S_ij^2 of each pair i.

  Args:
    images: As of `similarity_product`.
    texts: The same.
    weights: 1 for pairs that count, else 0. Array of shape ``[n]``.
    image_share: As of `similarity_product`.
    cross_share: The same.
    axis_name: The same.

  Returns:
    float32 array of shape ``[n]``.
  """
  weighted = jnp.concatenate([images, texts], axis=1) * weights[:, None]  # [n, 2 d]
  product = similarity_product(
    images, texts, weighted, image_share=image_share, cross_share=cross_share, axis_name=axis_name
  )  # S W F
  # S_ij = f_i M f_j^T, so that sum_j w_j S_ij^2 = (f_i M) . (S W F)_i
  mixed = jnp.concatenate(_mixed(images, texts, image_share, cross_share), axis=1)
  return jnp.sum(mixed * product, axis=1)
