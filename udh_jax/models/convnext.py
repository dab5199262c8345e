"""ConvNeXt."""

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.models.convolution import convolve
from udh_jax.models.layers import (
  Affine,
  Perceptron,
  features_of,
  layer_norm,
  project_patches,
  require_sides,
)


class Block(nn.Module):
  """Filters each channel over 7 x 7 positions, then a perceptron; added to the input."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to ``[b, h, w, c]``."""
    width = images.shape[-1]
    kernel, bias = Affine((7, 7, 1, width), dtype=self.dtype, name="conv_dw")()
    hidden = layer_norm(self.dtype, "norm")(convolve(images, kernel, bias))
    hidden = Perceptron(self.dtype, name="mlp")(hidden)
    gamma = self.param("gamma", nn.initializers.constant(1e-6), (width,), jnp.float32)
    return images + hidden * gamma.astype(self.dtype)


class Stage(nn.Module):
  """Halves the side, if asked to, then blocks."""

  depth: int
  width: int
  halve: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to ``[b, h, w, width]`` or ``[b, h // 2, w // 2, width]``."""
    if self.halve:
      images = layer_norm(self.dtype, "downsample_0")(images)
      shape = (2, 2, images.shape[-1], self.width)
      images = project_patches(images, *Affine(shape, dtype=self.dtype, name="downsample_1")())
    for block in range(self.depth):
      images = Block(self.dtype, name=f"blocks_{block}")(images)
    return images


class Head(nn.Module):
  """Normalises the pooled features."""

  @nn.compact
  def __call__(self, features):
    """Maps ``[b, d]`` to ``[b, d]``, float32."""
    return layer_norm(jnp.float32, "norm")(features)


class ConvNeXt(nn.Module):
  """ConvNeXt: a convolutional network in the shape of a transformer.

  Rows and columns of the images beyond a multiple of 32 are partly left out, as in timm.

  Attributes:
    dtype: Of the computation; parameters and features are float32.
    padding: "symmetric" or "same"; the same here, where windows with a stride do not overlap.
    depths: Blocks of each stage.
    widths: Channels of each stage.

  References:
    Liu et al., A ConvNet for the 2020s, CVPR 2022.
  """

  dtype: jnp.dtype = jnp.float32
  padding: str = "symmetric"
  depths: tuple[int, ...] = (3, 3, 9, 3)
  widths: tuple[int, ...] = (96, 192, 384, 768)

  classifier = "head.fc"
  image_size = 224
  side_multiple = 1

  @property
  def feature_dim(self) -> int:
    """Length of the pooled features."""
    return self.widths[-1]

  @property
  def least_side(self) -> int:
    """Side of the smallest images that leave one position."""
    return 4 * 2 ** (len(self.depths) - 1)

  @property
  def last_parts(self) -> str:
    """Pattern of the parts that are its end: the last stage, and what follows."""
    return rf"stages_{len(self.depths) - 1}|head"

  @nn.compact
  def __call__(self, images, *, pooled: bool = True):
    """Maps normalised images ``[b, h, w, 3]`` to float32 features ``[b, feature_dim]``.

    These are the mean over the positions, normalised. Without ``pooled`` it gives the feature map
    before both, ``[b, h // 32, w // 32, feature_dim]``.

    Raises:
      InputError: If a side is below `least_side`.
    """
    require_sides(images, least=self.least_side)
    stem = Affine((4, 4, 3, self.widths[0]), dtype=self.dtype, name="stem_0")()
    hidden = layer_norm(self.dtype, "stem_1")(project_patches(images.astype(self.dtype), *stem))
    for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
      hidden = Stage(depth, width, stage > 0, self.dtype, name=f"stages_{stage}")(hidden)
    features = features_of(hidden, pooled)
    # The normalisation belongs to the variables also where only the map is asked for.
    return Head(name="head")(features) if pooled else features
