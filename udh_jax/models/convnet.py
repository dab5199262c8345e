"""A small convolutional network for small images, to be trained from nothing."""

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.models.convolution import convolve
from udh_jax.models.layers import Kernel, features_of, require_sides


class SmallConvNet(nn.Module):
  """Pairs of 3 x 3 convolutions with group normalisation, halving the side between pairs.

  It keeps no running statistics: a step depends on its batch alone, whatever the number of devices.

  Attributes:
    dtype: Of the computation; parameters and features are float32.
    padding: "symmetric" or "same"; the same here, where no convolution has a stride.
    widths: Channels of each pair, multiples of 8; the last one is the length of the features.
  """

  dtype: jnp.dtype = jnp.float32
  padding: str = "symmetric"
  widths: tuple[int, ...] = (32, 64, 128)

  classifier = "head"
  last_parts = ".*"
  image_size = 32
  side_multiple = 1
  least_side = 4

  @property
  def feature_dim(self) -> int:
    """Length of the pooled features."""
    return self.widths[-1]

  @nn.compact
  def __call__(self, images, *, pooled: bool = True):
    """Maps normalised images ``[b, h, w, 3]``, sides of 4 and more, to float32 ``[b, d]``.

    Without ``pooled`` it gives the feature map before pooling, ``[b, h / 4, w / 4, d]``.
    """
    require_sides(images, least=self.least_side)
    require(
      images.shape[-1] == 3, f"images have {images.shape[-1]} channels; red, green, blue are read."
    )
    hidden = images.astype(self.dtype)
    for number, width in enumerate(self.widths):
      if number:
        hidden = _halve(hidden)
      for part in ("a", "b"):
        kernel = Kernel((3, 3, hidden.shape[-1], width), name=f"conv_{number}{part}")()
        bias = jnp.zeros(width, self.dtype)  # the normalisation has one
        hidden = convolve(hidden, kernel.astype(self.dtype), bias, padding=self.padding)
        norm = nn.GroupNorm(num_groups=8, dtype=self.dtype, name=f"norm_{number}{part}")
        hidden = nn.relu(norm(hidden))
    return features_of(hidden, pooled)


def _halve(images):
  """Maxima over 2 x 2 positions; an odd last row or column is left out.

  XLA's gradient of pooling windows is slow on the CPU; that of a maximum over axes is not.
  """
  batch, height, width, channels = images.shape
  images = images[:, : height // 2 * 2, : width // 2 * 2]
  return images.reshape(batch, height // 2, 2, width // 2, 2, channels).max(axis=(2, 4))
