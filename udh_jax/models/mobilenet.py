"""MobileNetV2."""

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.models.layers import FrozenNorm, Kernel, convolve_normalised, features_of

# Expansion, channels, blocks, stride of the first block.
_STAGES = (
  (1, 16, 1, 1),
  (6, 24, 2, 2),
  (6, 32, 3, 2),
  (6, 64, 4, 2),
  (6, 96, 3, 1),
  (6, 160, 3, 2),
  (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
  """Expands, filters each channel, projects; adds the input where the shapes agree."""

  channels: int
  expansion: int
  stride: int
  padding: str

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to ``[b, h / stride, w / stride, channels]``."""
    width = images.shape[-1]
    wide = width * self.expansion
    hidden = images
    # timm calls the projection of a block without expansion conv_pw, else conv_pwl.
    names = ("conv_dw", "bn1", "conv_pw", "bn2")
    if self.expansion != 1:
      names = ("conv_dw", "bn2", "conv_pwl", "bn3")
      kernel, norm = Kernel((1, 1, width, wide), name="conv_pw")(), FrozenNorm(wide, name="bn1")()
      hidden = convolve_normalised(hidden, kernel, norm, activation="relu6")
    kernel, norm = Kernel((3, 3, 1, wide), name=names[0])(), FrozenNorm(wide, name=names[1])()
    hidden = convolve_normalised(
      hidden, kernel, norm, stride=self.stride, padding=self.padding, activation="relu6"
    )
    kernel = Kernel((1, 1, wide, self.channels), name=names[2])()
    hidden = convolve_normalised(hidden, kernel, FrozenNorm(self.channels, name=names[3])())
    if self.stride == 1 and width == self.channels:
      hidden = hidden + images
    return hidden


class MobileNetV2(nn.Module):
  """MobileNetV2 at width 1.0, with running statistics always frozen (see `FrozenNorm`).

  Attributes:
    dtype: Of the computation; parameters and features are float32.
    padding: "symmetric" or "same"; the one the weights were trained with.

  References:
    Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018, table 2.
  """

  dtype: jnp.dtype = jnp.float32
  padding: str = "symmetric"

  @property
  def last_parts(self) -> tuple[str, ...]:
    """How the names of its last parts begin: about a sixth of the layers; () has no such end."""
    return ("blocks_5", "blocks_6", "conv_head", "bn2")

  @property
  def feature_dim(self) -> int:
    """Length of the pooled features."""
    return 1280

  @nn.compact
  def __call__(self, images, *, pooled: bool = True):
    """Maps normalised images ``[b, h, w, 3]`` to pooled float32 features ``[b, 1280]``.

    Without ``pooled`` it gives the feature map before pooling, ``[b, h / 32, w / 32, 1280]``.
    """
    hidden = images.astype(self.dtype)
    kernel = Kernel((3, 3, 3, 32), name="conv_stem")()
    norm = FrozenNorm(32, name="bn1")()
    hidden = convolve_normalised(
      hidden, kernel, norm, stride=2, padding=self.padding, activation="relu6"
    )
    for stage, (expansion, channels, blocks, stride) in enumerate(_STAGES):
      for block in range(blocks):
        hidden = InvertedResidual(
          channels,
          expansion,
          stride if block == 0 else 1,
          self.padding,
          name=f"blocks_{stage}_{block}",
        )(hidden)
    kernel = Kernel((1, 1, 320, 1280), name="conv_head")()
    norm = FrozenNorm(1280, name="bn2")()
    hidden = convolve_normalised(hidden, kernel, norm, activation="relu6")
    return features_of(hidden, pooled)
