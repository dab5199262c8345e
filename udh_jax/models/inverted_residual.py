"""Networks of inverted residuals: MobileNetV2, EfficientNet and EfficientNet-Lite."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.models.layers import Affine, FrozenNorm, Kernel, convolve_normalised, features_of


class Blocks(NamedTuple):
  """Blocks that follow each other at one size.

  Attributes:
    expansion: How many times as wide a block is inside.
    channels: It gives out.
    depth: Number of blocks.
    stride: Of the first block.
    window: Side of its depthwise kernel.
  """

  expansion: int
  channels: int
  depth: int
  stride: int
  window: int


MOBILENETV2 = (
  Blocks(1, 16, 1, 1, 3),
  Blocks(6, 24, 2, 2, 3),
  Blocks(6, 32, 3, 2, 3),
  Blocks(6, 64, 4, 2, 3),
  Blocks(6, 96, 3, 1, 3),
  Blocks(6, 160, 3, 2, 3),
  Blocks(6, 320, 1, 1, 3),
)
EFFICIENTNET_B0 = (
  Blocks(1, 16, 1, 1, 3),
  Blocks(6, 24, 2, 2, 3),
  Blocks(6, 40, 2, 2, 5),
  Blocks(6, 80, 3, 2, 3),
  Blocks(6, 112, 3, 1, 5),
  Blocks(6, 192, 4, 2, 5),
  Blocks(6, 320, 1, 1, 3),
)


class SqueezeExcite(nn.Module):
  """Weighs the channels by what the whole image holds.

  Attributes:
    squeezed: Width between its two layers.

  References:
    Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
  """

  squeezed: int

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to ``[b, h, w, c]``."""
    width, dtype = images.shape[-1], images.dtype
    means = jnp.mean(images, axis=(1, 2))  # [b, c]
    kernel, bias = Affine((1, 1, width, self.squeezed), dtype=dtype, name="conv_reduce")()
    hidden = nn.silu(means @ kernel[0, 0] + bias)
    kernel, bias = Affine((1, 1, self.squeezed, width), dtype=dtype, name="conv_expand")()
    return images * nn.sigmoid(hidden @ kernel[0, 0] + bias)[:, None, None]


class InvertedResidual(nn.Module):
  """Expands, filters each channel, projects; adds the input where the shapes agree.

  Attributes:
    blocks: What it is one of.
    stride: Of the depthwise kernel.
    padding: "symmetric" or "same".
    activation: "relu6" or "silu".
    squeeze: Whether the channels are weighed, see `SqueezeExcite`; a quarter as wide as the input.
    epsilon: Of the normalisations.
  """

  blocks: Blocks
  stride: int
  padding: str
  activation: str
  squeeze: bool
  epsilon: float

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to ``[b, h / stride, w / stride, channels]``."""
    width, window, channels = images.shape[-1], self.blocks.window, self.blocks.channels
    wide = width * self.blocks.expansion
    hidden = images
    # timm calls the projection of a block without expansion conv_pw, else conv_pwl.
    names = ("conv_dw", "bn1", "conv_pw", "bn2")
    if self.blocks.expansion != 1:
      names = ("conv_dw", "bn2", "conv_pwl", "bn3")
      kernel, norm = Kernel((1, 1, width, wide), name="conv_pw")(), self._norm(wide, "bn1")
      hidden = convolve_normalised(hidden, kernel, norm, activation=self.activation)
    kernel, norm = Kernel((window, window, 1, wide), name=names[0])(), self._norm(wide, names[1])
    hidden = convolve_normalised(
      hidden, kernel, norm, stride=self.stride, padding=self.padding, activation=self.activation
    )
    if self.squeeze:
      hidden = SqueezeExcite(width // 4, name="se")(hidden)
    kernel = Kernel((1, 1, wide, channels), name=names[2])()
    hidden = convolve_normalised(hidden, kernel, self._norm(channels, names[3]))
    if self.stride == 1 and width == channels:
      hidden = hidden + images
    return hidden

  def _norm(self, channels, name):
    return FrozenNorm(channels, self.epsilon, name=name)()


class InvertedResidualNet(nn.Module):
  """A convolution, inverted residuals and a wide 1 x 1 convolution.

  Running statistics are always frozen (see `FrozenNorm`).

  Attributes:
    dtype: Of the computation; parameters and features are float32.
    padding: "symmetric" or "same"; the one the weights were trained with.
    plan: The blocks, such as `MOBILENETV2`.
    activation: "relu6" or "silu".
    squeeze: Whether blocks weigh their channels; see `SqueezeExcite`.
    epsilon: Of the normalisations: 1e-5 in PyTorch, 1e-3 in TensorFlow.
    stem_width: Channels of the first convolution.
    feature_dim: Length of the pooled features.

  References:
    Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, table 2;
    Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019,
    table 1. Lite is without squeezing, and with "relu6".
  """

  dtype: jnp.dtype = jnp.float32
  padding: str = "symmetric"
  plan: tuple[Blocks, ...] = MOBILENETV2
  activation: str = "relu6"
  squeeze: bool = False
  epsilon: float = 1e-5
  stem_width: int = 32
  feature_dim: int = 1280

  classifier = "classifier"
  image_size = 224
  side_multiple = 1
  least_side = 1

  @property
  def last_parts(self) -> str:
    """Pattern of the parts that are its end: the blocks of the smallest size, and what follows."""
    return rf"blocks_({len(self.plan) - 2}|{len(self.plan) - 1})_\d+|conv_head|bn2"

  @nn.compact
  def __call__(self, images, *, pooled: bool = True):
    """Maps normalised images ``[b, h, w, 3]`` to pooled float32 features ``[b, feature_dim]``.

    Without ``pooled`` it gives the feature map before pooling, ``[b, h / 32, w / 32,
    feature_dim]``.
    """
    hidden = images.astype(self.dtype)
    kernel = Kernel((3, 3, 3, self.stem_width), name="conv_stem")()
    norm = FrozenNorm(self.stem_width, self.epsilon, name="bn1")()
    hidden = convolve_normalised(
      hidden, kernel, norm, stride=2, padding=self.padding, activation=self.activation
    )
    for stage, blocks in enumerate(self.plan):
      for block in range(blocks.depth):
        hidden = InvertedResidual(
          blocks,
          blocks.stride if block == 0 else 1,
          self.padding,
          self.activation,
          self.squeeze,
          self.epsilon,
          name=f"blocks_{stage}_{block}",
        )(hidden)
    kernel = Kernel((1, 1, hidden.shape[-1], self.feature_dim), name="conv_head")()
    norm = FrozenNorm(self.feature_dim, self.epsilon, name="bn2")()
    hidden = convolve_normalised(hidden, kernel, norm, activation=self.activation)
    return features_of(hidden, pooled)
