"""ResNet."""

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.models.convolution import explicit_padding
from udh_jax.models.layers import FrozenNorm, Kernel, convolve_normalised, features_of


class Residual(nn.Module):
  """Two or three convolutions and a shortcut.

  Attributes:
    width: Channels inside.
    bottleneck: Whether it is 1 x 1, 3 x 3, 1 x 1 with four times the channels out, or two of 3 x 3.
    stride: Of the first 3 x 3 convolution.
    padding: "symmetric" or "same".
  """

  width: int
  bottleneck: bool
  stride: int
  padding: str

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to ``[b, h / stride, w / stride, width or 4 width]``."""
    if self.bottleneck:
      plan = ((1, self.width, 1), (3, self.width, self.stride), (1, 4 * self.width, 1))
    else:
      plan = ((3, self.width, self.stride), (3, self.width, 1))
    hidden = images
    for number, (window, channels, stride) in enumerate(plan, start=1):
      kernel = Kernel((window, window, hidden.shape[-1], channels), name=f"conv{number}")()
      hidden = convolve_normalised(
        hidden,
        kernel,
        FrozenNorm(channels, name=f"bn{number}")(),
        stride=stride,
        padding=self.padding,
        activation="relu" if number < len(plan) else "linear",
      )
    if hidden.shape != images.shape:
      channels = hidden.shape[-1]
      kernel = Kernel((1, 1, images.shape[-1], channels), name="downsample_0")()
      norm = FrozenNorm(channels, name="downsample_1")()
      images = convolve_normalised(images, kernel, norm, stride=self.stride, padding=self.padding)
    return nn.relu(hidden + images)


class ResNet(nn.Module):
  """ResNet, with running statistics always frozen (see `FrozenNorm`).

  The stride of a bottleneck is in its 3 x 3 convolution, as in PyTorch and timm.

  Attributes:
    blocks: Number of blocks of each of the four stages.
    bottleneck: Which kind of block; see `Residual`.
    dtype: Of the computation; parameters and features are float32.
    padding: "symmetric" or "same"; the one the weights were trained with.

  References:
    He et al., Deep Residual Learning for Image Recognition, CVPR 2016, table 1.
  """

  blocks: tuple[int, int, int, int]
  bottleneck: bool
  dtype: jnp.dtype = jnp.float32
  padding: str = "symmetric"

  classifier = "fc"
  last_parts = r"layer4_\d+"
  image_size = 224
  side_multiple = 1
  least_side = 1

  @property
  def feature_dim(self) -> int:
    """Length of the pooled features."""
    return 2048 if self.bottleneck else 512

  @nn.compact
  def __call__(self, images, *, pooled: bool = True):
    """Maps normalised images ``[b, h, w, 3]`` to pooled float32 features ``[b, d]``.

    Without ``pooled`` it gives the feature map before pooling, ``[b, h / 32, w / 32, d]``.
    """
    kernel, norm = Kernel((7, 7, 3, 64), name="conv1")(), FrozenNorm(64, name="bn1")()
    hidden = images.astype(self.dtype)
    hidden = convolve_normalised(
      hidden, kernel, norm, stride=2, padding=self.padding, activation="relu"
    )
    pads = [explicit_padding(size, 3, 2, self.padding) for size in hidden.shape[1:3]]
    hidden = nn.max_pool(hidden, (3, 3), strides=(2, 2), padding=pads)
    for stage, blocks in enumerate(self.blocks):
      for block in range(blocks):
        hidden = Residual(
          64 * 2**stage,
          self.bottleneck,
          2 if stage > 0 and block == 0 else 1,
          self.padding,
          name=f"layer{stage + 1}_{block}",
        )(hidden)
    return features_of(hidden, pooled)
