"""Pieces that the backbones share."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.errors import require
from udh_jax.models.convolution import convolve

_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")
token_init = nn.initializers.truncated_normal(0.02)


def _quick_gelu(values):
  """x sigmoid(1.702 x): what OpenAI's CLIP computes in place of GELU."""
  return values * nn.sigmoid(1.702 * values)


def _gelu(values):
  return nn.gelu(values, approximate=False)


GELUS = {"gelu": _gelu, "quick_gelu": _quick_gelu}


class Kernel(nn.Module):
  """Holds a convolution kernel, so that its name in the tree is that of the published weights."""

  shape: tuple[int, int, int, int]

  @nn.compact
  def __call__(self):
    """Returns the float32 kernel ``[kh, kw, c, d]``."""
    return self.param("kernel", _kernel_init, self.shape, jnp.float32)


class Affine(nn.Module):
  """Holds the kernel and the bias of a convolution that no normalisation is folded into.

  Attributes:
    shape: Of the kernel, ``[kh, kw, c, d]``.
    use_bias: Whether there is a bias; it is 0 where there is none.
    dtype: Both are returned in it; they are float32 in the tree.
  """

  shape: tuple[int, int, int, int]
  use_bias: bool = True
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self):
    """Returns the kernel ``[kh, kw, c, d]`` and the bias ``[d]``."""
    kernel = self.param("kernel", token_init, self.shape, jnp.float32)
    bias = jnp.zeros(self.shape[-1], self.dtype)
    if self.use_bias:
      bias = self.param("bias", nn.initializers.zeros_init(), self.shape[-1:], jnp.float32)
    return kernel.astype(self.dtype), bias.astype(self.dtype)


class FrozenNorm(nn.Module):
  """Batch normalisation by its running statistics, which never change.

  Training fits the scale and the bias only. Published weights often come with their batch
  normalisation folded into the kernels (identity statistics): normalising by the statistics of a
  batch would destroy them. It also makes a training step independent of the number of devices.
  """

  channels: int
  epsilon: float = 1e-5

  @nn.compact
  def __call__(self):
    """Returns the factor and the offset, float32 ``[channels]`` each."""
    shape = (self.channels,)
    scale = self.param("scale", nn.initializers.ones_init(), shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros_init(), shape, jnp.float32)
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32).value
    var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32).value
    factor = scale * lax.rsqrt(lax.stop_gradient(var) + self.epsilon)
    return factor, bias - lax.stop_gradient(mean) * factor


def convolve_normalised(
  images: jax.Array,
  kernel: jax.Array,
  norm: tuple[jax.Array, jax.Array],
  *,
  stride: int = 1,
  padding: str = "symmetric",
  activation: str = "linear",
) -> jax.Array:
  """Convolution, frozen normalisation and activation, folded: fewer passes over the images.

  Args:
    images: Array of shape ``[b, h, w, c]``; its dtype is that of the computation.
    kernel: Float32 array of shape ``[kh, kw, c, d]``.
    norm: Factor and offset, float32 arrays of shape ``[d]``.
    stride: Step along both axes.
    padding: "symmetric" or "same".
    activation: "linear", "relu", "relu6" or "silu".

  Returns:
    Array of shape ``[b, ceil(h / stride), ceil(w / stride), d]``.
  """
  factor, offset = norm
  folded = (kernel * factor).astype(images.dtype)
  offset = offset.astype(images.dtype)
  options: dict[str, Any] = {"stride": stride, "padding": padding}
  if activation == "silu":
    return nn.silu(convolve(images, folded, offset, **options))
  return convolve(images, folded, offset, **options, activation=activation)


def project_patches(images: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
  """A linear map of each patch: a convolution whose stride is its window, without padding.

  Rows and columns that do not fill a patch are left out, as in PyTorch.

  Args:
    images: Array of shape ``[b, h, w, c]``.
    kernel: Array of shape ``[p, p, c, d]``, of the same dtype.
    bias: Array of shape ``[d]``, of the same dtype.

  Returns:
    Array of shape ``[b, h // p, w // p, d]``.
  """
  batch, height, width, channels = images.shape
  side = kernel.shape[0]
  rows, columns = height // side, width // side
  patches = images[:, : rows * side, : columns * side]
  patches = patches.reshape(batch, rows, side, columns, side, channels).swapaxes(2, 3)
  patches = patches.reshape(batch, rows, columns, side * side * channels)
  return patches @ kernel.reshape(-1, kernel.shape[-1]) + bias


def layer_norm(dtype: Any, name: str, epsilon: float = 1e-6) -> nn.Module:
  """Layer normalisation over the last axis, in float32 inside; returns ``dtype``."""
  return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


class Perceptron(nn.Module):
  """Two dense layers, four times as wide between them.

  Attributes:
    dtype: Of the computation.
    activation: "gelu", the exact one, or "quick_gelu".
  """

  dtype: jnp.dtype
  activation: str = "gelu"

  @nn.compact
  def __call__(self, tokens):
    """Maps ``[..., d]`` to ``[..., d]``."""
    dense = {"kernel_init": token_init, "dtype": self.dtype}
    hidden = nn.Dense(4 * tokens.shape[-1], name="fc1", **dense)(tokens)
    return nn.Dense(tokens.shape[-1], name="fc2", **dense)(GELUS[self.activation](hidden))


class Scale(nn.Module):
  """A factor of each channel, learned from a small start.

  References:
    Touvron et al., Going Deeper with Image Transformers, ICCV 2021 (LayerScale).
  """

  start: float = 1e-5

  @nn.compact
  def __call__(self, values):
    """Maps ``[..., d]`` to ``[..., d]``."""
    start = nn.initializers.constant(self.start)
    gamma = self.param("gamma", start, values.shape[-1:], jnp.float32)
    return values * gamma.astype(values.dtype)


def features_of(images: jax.Array, pooled: bool) -> jax.Array:
  """What a convolutional backbone hands over of its last layer, float32.

  Args:
    images: Array of shape ``[b, h, w, c]``.
    pooled: Whether to take the mean over the positions.

  Returns:
    Array of shape ``[b, c]``, or ``[b, h, w, c]`` where not ``pooled``.
  """
  images = images.astype(jnp.float32)
  return jnp.mean(images, axis=(1, 2)) if pooled else images


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
  """Multi-head attention.

  Args:
    query: Array of shape ``[b, q, heads, d]``.
    key: Array of shape ``[b, t, heads, d]``.
    value: Array of shape ``[b, t, heads, d]``.

  Returns:
    Heads side by side, ``[b, q, heads * d]``.
  """
  mixed = jax.nn.dot_product_attention(query, key, value)
  return mixed.reshape(*mixed.shape[:2], -1)


def require_sides(images: jax.Array, *, multiple: int = 1, least: int = 1) -> None:
  """Refuses images that a network cannot read whole.

  Raises:
    InputError: If a side is no multiple of ``multiple``, or is below ``least``.
  """
  height, width = images.shape[1:3]
  require(
    height % multiple == 0 and width % multiple == 0,
    f"images are {height} x {width}; sides have to be multiples of the patch, {multiple}: "
    "resize them.",
  )
  require(
    min(height, width) >= least,
    f"images are {height} x {width}; sides of {least} and more are needed: enlarge them.",
  )
