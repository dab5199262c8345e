"""A small convolutional network for small images, to be trained from nothing."""

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.models.layers import pool


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

  @property
  def feature_dim(self) -> int:
    """Length of the pooled features."""
    return self.widths[-1]

  @nn.compact
  def __call__(self, images):
    """Maps normalised images ``[b, h, w, 3]``, sides of 4 and more, to float32 ``[b, d]``."""
    hidden = images.astype(self.dtype)
    for number, width in enumerate(self.widths):
      if number:
        hidden = nn.max_pool(hidden, (2, 2), strides=(2, 2))
      for part in ("a", "b"):
        name = f"conv_{number}{part}"
        hidden = nn.Conv(width, (3, 3), use_bias=False, dtype=self.dtype, name=name)(hidden)
        norm = nn.GroupNorm(num_groups=8, dtype=self.dtype, name=f"norm_{number}{part}")
        hidden = nn.relu(norm(hidden))
    return pool(hidden)
