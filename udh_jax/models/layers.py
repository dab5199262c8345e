"""Pieces that the backbones share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from udh_jax.models.convolution import convolve

_kernel_init = nn.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


class Kernel(nn.Module):
  """Holds a convolution kernel, so that its name in the tree is that of the published weights."""

  shape: tuple[int, int, int, int]

  @nn.compact
  def __call__(self):
    """Returns the float32 kernel ``[kh, kw, c, d]``."""
    return self.param("kernel", _kernel_init, self.shape, jnp.float32)


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
    activation: "linear", "relu" or "relu6".

  Returns:
    Array of shape ``[b, ceil(h / stride), ceil(w / stride), d]``.
  """
  factor, offset = norm
  folded = (kernel * factor).astype(images.dtype)
  offset = offset.astype(images.dtype)
  return convolve(images, folded, offset, stride=stride, padding=padding, activation=activation)


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
