"""Shallow hash functions on given features: the baselines every learned result stands beside."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax.arrays import Array
from udh_jax.coding.binary import sign
from udh_jax.errors import (
  is_traced,
  require,
  require_automatic,
  require_finite,
  require_key,
  whole_number,
)
from udh_jax.numerics import at_least_float32, matmul, with_fixed_signs
from udh_jax.sharding import mean_of_rows, pmax, psum


class LinearHash(NamedTuple):
  """A hash function that is one affine map and a sign.

  Attributes:
    mean: What is subtracted from the features. Array of shape ``[d]``.
    projection: One column a bit. Array of shape ``[d, c]``.
  """

  mean: jax.Array
  projection: jax.Array


def encode(hash_function: LinearHash, features: Array) -> jax.Array:
  """Codes of features: sign((x - mean) P).

  Args:
    hash_function: Fitted by `lsh`, `pca_rotation` or `itq`.
    features: Array of shape ``[n, d]``.

  Returns:
    int8 array of shape ``[n, c]``, values in {-1, +1}.

  Raises:
    InputError: If the widths differ or a feature is not finite.

  References:
    Our own definition.
  """
  features = jnp.asarray(features)
  width = hash_function.mean.shape[0]
  require(
    features.ndim == 2 and features.shape[1] == width,
    f"encode: features have shape {features.shape}, the hash function expects [n, {width}].",
  )
  if features.size:
    require_finite("encode: features", features)
  return _encode(hash_function, features)


def lsh(
  features: Array,
  num_bits: int,
  *,
  key: jax.Array,
  weights: Array | None = None,
  axis_name: str | None = None,
) -> LinearHash:
  """Locality-sensitive hashing: random hyperplanes through the mean.

  Args:
    features: Training features, this device's rows. Array of shape ``[n, d]``.
    num_bits: Number of bits c, any number.
    key: Random key, the same on every shard.
    weights: 0 masks a row (padding, or not for training). Array of shape ``[n]``; None counts all.
    axis_name: Mapped axis over which the rows are sharded; None means one device.

  Returns:
    The hash function.

  Raises:
    InputError: If a shape is wrong, ``num_bits`` < 1, a value is not finite or no row counts.

  References:
    Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002, section 3. The
    subtraction of the mean is ours.
  """
  features, weights, num_bits = _checked("lsh", features, num_bits, weights, key, limited=False)
  return _fit_lsh(features, weights, key, num_bits=num_bits, axis_name=axis_name)


def pca_rotation(
  features: Array,
  num_bits: int,
  *,
  key: jax.Array,
  weights: Array | None = None,
  axis_name: str | None = None,
) -> LinearHash:
  """Principal directions, turned by one random rotation, which evens out their variances.

  Args:
    features: Training features, this device's rows. Array of shape ``[n, d]``.
    num_bits: Number of bits c, at most d.
    key: Random key, the same on every shard.
    weights: 0 masks a row (padding, or not for training). Array of shape ``[n]``; None counts all.
    axis_name: Mapped axis over which the rows are sharded; None means one device.

  Returns:
    The hash function. Its columns are orthonormal.

  Raises:
    InputError: If a shape is wrong, ``num_bits`` is not in 1..d, a value is not finite or no row
      counts.

  References:
    Jegou et al., Aggregating local descriptors into a compact image representation, CVPR 2010, and
    Gong and Lazebnik, Iterative Quantization, CVPR 2011, section 2.2 (the "PCA-RR" baseline).
  """
  features, weights, num_bits = _checked("pca_rotation", features, num_bits, weights, key)
  return _fit_pca_rotation(features, weights, key, num_bits=num_bits, axis_name=axis_name)


def itq(
  features: Array,
  num_bits: int,
  *,
  key: jax.Array,
  num_iterations: int = 50,
  weights: Array | None = None,
  axis_name: str | None = None,
) -> LinearHash:
  """Iterative quantisation: principal directions, turned so that they lie close to their signs.

  Alternates B = sign(Z R) and R = the rotation closest to B, where Z are the projections on the
  principal directions; no iteration raises ||B - Z R||^2. Starts from the rotation that
  `pca_rotation` would draw from the same key.

  Args:
    features: Training features, this device's rows. Array of shape ``[n, d]``.
    num_bits: Number of bits c, at most d.
    key: Random key, the same on every shard.
    num_iterations: Number of alternations, at least 0; 50 is the authors' number.
    weights: 0 masks a row (padding, or not for training). Array of shape ``[n]``; None counts all.
    axis_name: Mapped axis over which the rows are sharded; None means one device.

  Returns:
    The hash function. Its columns are orthonormal.

  Raises:
    InputError: If a shape is wrong, ``num_bits`` is not in 1..d, ``num_iterations`` < 0, a value is
      not finite or no row counts.

  References:
    Gong and Lazebnik, Iterative Quantization, CVPR 2011, section 2.2.
  """
  features, weights, num_bits = _checked("itq", features, num_bits, weights, key)
  num_iterations = whole_number("itq: num_iterations", num_iterations)
  require(num_iterations >= 0, f"itq: num_iterations is {num_iterations}, expected at least 0.")
  return _fit_itq(
    features,
    weights,
    key,
    num_bits=num_bits,
    num_iterations=num_iterations,
    axis_name=axis_name,
  )


def _checked(name, features, num_bits, weights, key, *, limited=True):
  require_key(name, key)
  features, weights = checked_rows(name, features, weights)
  num_bits = whole_number(f"{name}: num_bits", num_bits)
  require(num_bits >= 1, f"{name}: num_bits is {num_bits}, expected at least 1.")
  require(
    not limited or num_bits <= features.shape[1],
    f"{name}: {num_bits} bits from features of shape {features.shape}: there are only "
    f"{features.shape[1]} principal directions; ask for fewer bits or use lsh.",
  )
  return features, weights, num_bits


def checked_rows(name: str, features: Array, weights: Array | None) -> tuple[jax.Array, jax.Array]:
  """Training features and their weights as floats, checked; masked rows are zeros.

  Args:
    name: Who asks, for the message.
    features: Array of shape ``[n, d]``.
    weights: 0 masks a row, which may hold anything; others weigh it. Array of shape ``[n]``, of
      finite numbers of 0 or more; None counts all.

  Returns:
    Features and weights, float32 (float64 stays).

  Raises:
    InputError: If a shape is wrong, a value is not finite or no row counts.
  """
  require_automatic(name, features, weights)
  features = jnp.asarray(features)
  require(
    features.ndim == 2 and features.shape[1] >= 1,
    f"{name}: features have shape {features.shape}, expected [n, d].",
  )
  require(features.shape[0] >= 1, f"{name}: there are no training rows (shape {features.shape}).")
  given = weights is not None
  weights = jnp.asarray(weights) if given else jnp.ones(features.shape[0], jnp.float32)
  require(
    weights.shape == features.shape[:1],
    f"{name}: weights have shape {weights.shape}, features {features.shape}; expected [n].",
  )
  if given:  # masked rows may hold anything
    features = jnp.where(weights[:, None] > 0, features, 0)
  require_finite(f"{name}: features", features)
  if not is_traced(weights) and weights.is_fully_addressable:
    known = np.asarray(weights)
    require(
      bool((np.isfinite(known) & (known >= 0)).all()),
      f"{name}: weights hold NaN, infinity or negative numbers; give 0 for a masked row.",
    )
    require(bool((known > 0).any()), f"{name}: all weights are 0, no row is left to train on.")
  dtype = jnp.promote_types(features.dtype, jnp.float32)
  return features.astype(dtype), weights.astype(dtype)


def _principal_directions(features, weights, num_bits, axis_name):
  """Mean [d] and the num_bits leading eigenvectors of the covariance [d, c]."""
  mean, _ = mean_of_rows(features, weights, axis_name)
  centred = (features - mean) * jnp.sqrt(weights)[:, None]
  # Scaled by a power of two, which rounds nothing, squares neither overflow nor vanish.
  _, exponent = jnp.frexp(pmax(jnp.max(jnp.abs(centred)), axis_name))
  centred = centred * jnp.ldexp(jnp.ones((), centred.dtype), -exponent)
  covariance = psum(matmul(centred.T, centred), axis_name)  # [d, d]
  _, vectors = jnp.linalg.eigh(covariance)
  vectors = vectors[:, ::-1][:, :num_bits]
  return mean, with_fixed_signs(vectors)


def _random_rotation(key, size, dtype):
  q, r = jnp.linalg.qr(jax.random.normal(key, (size, size), dtype))
  return q * jnp.where(jnp.diag(r) >= 0, 1, -1)  # makes the draw uniform and the result unique


@jax.jit
def _encode(hash_function, features):
  centred = at_least_float32(features) - hash_function.mean
  return sign(matmul(centred, hash_function.projection)).astype(jnp.int8)


@functools.partial(jax.jit, static_argnames=("num_bits", "axis_name"))
def _fit_lsh(features, weights, key, *, num_bits, axis_name):
  mean, _ = mean_of_rows(features, weights, axis_name)
  return LinearHash(mean, jax.random.normal(key, (features.shape[1], num_bits), features.dtype))


@functools.partial(jax.jit, static_argnames=("num_bits", "axis_name"))
def _fit_pca_rotation(features, weights, key, *, num_bits, axis_name):
  mean, directions = _principal_directions(features, weights, num_bits, axis_name)
  return LinearHash(mean, matmul(directions, _random_rotation(key, num_bits, features.dtype)))


@functools.partial(jax.jit, static_argnames=("num_bits", "axis_name"))
def _fit_itq(features, weights, key, *, num_bits, num_iterations, axis_name):
  mean, directions = _principal_directions(features, weights, num_bits, axis_name)
  projected = matmul(features - mean, directions)  # [n, c]

  def turn(_, rotation):
    signs = sign(matmul(projected, rotation)) * weights[:, None]
    # The rotation that maximises tr(R^T Z^T B): only c x c numbers travel between devices.
    left, _, right = jnp.linalg.svd(psum(matmul(projected.T, signs), axis_name))
    return matmul(left, right)

  start = _random_rotation(key, num_bits, features.dtype)
  rotation = lax.fori_loop(0, num_iterations, turn, start)
  return LinearHash(mean, matmul(directions, rotation))
