"""What image-text hashing without labels is trained to rebuild."""

from typing import Any

import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.losses.reduction import row_weights
from udh_jax.numerics import matmul
from udh_jax.similarity.cosine import cosines


def joint_semantics(
  image_features: jax.Array,
  text_features: jax.Array,
  *,
  beta: float,
  eta: float,
  mu: float,
  weights: jax.Array | None = None,
) -> jax.Array:
  """The joint-semantics affinity of a batch of pairs.

  S_x = 2 cos(F_x, F_x) - 1, S~ = beta S_I + (1 - beta) S_T,
  S = mu [(1 - eta) S~ + eta S~ S~^T / m].

  Args:
    image_features: Of a frozen network, or given. Array of shape ``[m, d]``.
    text_features: Tags, counts or features of the same pairs. Array of shape ``[m, t]``.
    beta: Share of the images, in [0, 1].
    eta: Share of the second-order term, in [0, 1].
    mu: Scale of the whole, > 0; the authors take 1.5.
    weights: 0 leaves a pair out of the second-order term; it may hold what is not finite, which
      counts as 0. Array of shape ``[m]``; None keeps all.

  Returns:
    float32 array of shape ``[m, m]``, symmetric.

  Raises:
    InputError: If a shape is wrong or ``beta`` or ``eta`` is outside [0, 1].

  References:
    Su et al., Deep joint-semantics reconstructing hashing, ICCV 2019, equations 4 to 7.
  """
  require(
    image_features.ndim == text_features.ndim == 2 and len(image_features) == len(text_features),
    f"joint_semantics: features have shapes {image_features.shape} and {text_features.shape}, "
    "expected [m, d] and [m, t].",
  )
  for name, value in (("beta", beta), ("eta", eta)):
    require(0 <= value <= 1, f"joint_semantics: {name} is {value}, expected 0 to 1.")
  weights = row_weights(weights, len(image_features), jnp.float32)
  image_features, text_features = (
    jnp.where((weights[:, None] > 0) | jnp.isfinite(rows), rows, 0)
    for rows in (image_features, text_features)
  )
  images = 2 * cosines(image_features, image_features) - 1
  texts = 2 * cosines(text_features, text_features) - 1
  first = beta * images + (1 - beta) * texts  # [m, m]
  second = matmul(first * weights, first.T)
  return mu * ((1 - eta) * first + eta * second / jnp.maximum(weights.sum(), 1))


def sharpness(epoch: Any) -> Any:
  """How steep the relaxed codes tanh(alpha h) are in an epoch: alpha = sqrt(epoch + 1).

  Args:
    epoch: From 0 on; a number or a scalar array.

  References:
    Su et al., ICCV 2019, section 3.4, and the authors' code.
  """
  return (epoch + 1.0) ** 0.5


def reconstruction_loss(
  first: jax.Array, second: jax.Array, target: jax.Array, *, weights: jax.Array | None = None
) -> jax.Array:
  """Mean squared difference between the cosines of two sets of outputs and their target.

  Args:
    first: Array of shape ``[m, c]``.
    second: Array of shape ``[m, c]``.
    target: What cos(first_i, second_j) has to be. Array of shape ``[m, m]``.
    weights: Weight of each row; a pair of rows weighs the product. Array of shape ``[m]``; None
      weighs all alike.

  Returns:
    float32 scalar; 0 if all weights are 0.

  Raises:
    InputError: If the shapes disagree.

  References:
    Su et al., ICCV 2019, equation 9.
  """
  require(
    first.ndim == 2 and first.shape == second.shape and target.shape == (len(first),) * 2,
    f"reconstruction_loss: outputs have shapes {first.shape} and {second.shape} and the target "
    f"{target.shape}, expected both [m, c] and [m, m].",
  )
  weights = row_weights(weights, len(first), jnp.float32)
  # Rows of weight 0 may hold anything.
  first, second = (jnp.where(weights[:, None] > 0, rows, 0) for rows in (first, second))
  both = (weights[:, None] > 0) & (weights > 0)
  squares = jnp.where(both, (cosines(first, second) - target) ** 2, 0)
  total = weights.sum() ** 2
  return matmul(matmul(weights, squares), weights) / jnp.where(total > 0, total, 1)
