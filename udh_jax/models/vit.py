"""Vision transformer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from udh_jax.errors import require

_init = nn.initializers.truncated_normal(0.02)


class Attention(nn.Module):
  """Multi-head self-attention."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens):
    """Maps ``[b, t, d]`` to ``[b, t, d]``."""
    width = tokens.shape[-1]
    dense = {"kernel_init": _init, "dtype": self.dtype}
    together = nn.Dense(3 * width, name="qkv", **dense)(tokens)
    together = together.reshape(*tokens.shape[:2], 3, self.heads, width // self.heads)
    query, key, value = jnp.moveaxis(together, 2, 0)  # [b, t, heads, d / heads] each
    mixed = jax.nn.dot_product_attention(query, key, value)
    return nn.Dense(width, name="proj", **dense)(mixed.reshape(tokens.shape))


class Perceptron(nn.Module):
  """Two dense layers, four times as wide between them."""

  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens):
    """Maps ``[b, t, d]`` to ``[b, t, d]``."""
    dense = {"kernel_init": _init, "dtype": self.dtype}
    hidden = nn.gelu(nn.Dense(4 * tokens.shape[-1], name="fc1", **dense)(tokens), approximate=False)
    return nn.Dense(tokens.shape[-1], name="fc2", **dense)(hidden)


class Block(nn.Module):
  """Attention, then a perceptron, each on normalised tokens and added to them."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens):
    """Maps ``[b, t, d]`` to ``[b, t, d]``."""
    tokens += Attention(self.heads, self.dtype, name="attn")(_norm(self.dtype, "norm1")(tokens))
    return tokens + Perceptron(self.dtype, name="mlp")(_norm(self.dtype, "norm2")(tokens))


class VisionTransformer(nn.Module):
  """Vision transformer whose features are the class token's.

  For images of another size than 224 the position embedding is resized as timm does (bicubic,
  antialiased).

  Attributes:
    dtype: Of the computation; parameters and features are float32.
    padding: Not used: patches do not overlap.
    patch: Side of a patch, in pixels.
    width: Length of a token, and of the features.
    depth: Number of blocks.
    heads: Of the attention.

  References:
    Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, section 3.1;
    Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021 (features).
  """

  dtype: jnp.dtype = jnp.float32
  padding: str = "symmetric"
  patch: int = 16
  width: int = 384
  depth: int = 12
  heads: int = 6

  @property
  def last_parts(self) -> tuple[str, ...]:
    """How the names of its last parts begin: about a sixth of the layers; () has no such end."""
    return (f"blocks_{self.depth - 2}", f"blocks_{self.depth - 1}", "norm")

  @property
  def feature_dim(self) -> int:
    """Length of the features."""
    return self.width

  @nn.compact
  def __call__(self, images, *, pooled: bool = True):
    """Maps normalised images ``[b, h, w, 3]`` to float32 features ``[b, width]``.

    Without ``pooled`` it gives the tokens of the patches as a feature map, ``[b, h / patch,
    w / patch, width]``, through the same last normalisation.

    Raises:
      InputError: If a side is not a multiple of the patch.
    """
    batch, height, width, _ = images.shape
    require(
      height % self.patch == 0 and width % self.patch == 0,
      f"images are {height} x {width}; sides have to be multiples of the patch, {self.patch}: "
      "resize them.",
    )
    grid = (height // self.patch, width // self.patch)
    tokens = PatchEmbedding(self.patch, self.width, self.dtype, name="patch_embed")(images)
    side = 224 // self.patch
    position = self.param("pos_embed", _init, (1, 1 + side * side, self.width), jnp.float32)
    head = self.param("cls_token", _init, (1, 1, self.width), jnp.float32)
    position = _resize_position(position, side, grid)
    head = jnp.broadcast_to(head.astype(self.dtype), (batch, 1, self.width))
    tokens = jnp.concatenate([head, tokens], axis=1) + position.astype(self.dtype)
    for block in range(self.depth):
      tokens = Block(self.heads, self.dtype, name=f"blocks_{block}")(tokens)
    norm = _norm(self.dtype, "norm")
    if pooled:
      return norm(tokens[:, 0]).astype(jnp.float32)
    return norm(tokens[:, 1:]).astype(jnp.float32).reshape(batch, *grid, self.width)


class PatchEmbedding(nn.Module):
  """A linear map of each patch."""

  patch: int
  width: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to tokens ``[b, h w / patch^2, width]``, row by row."""
    batch, height, width, channels = images.shape
    kernel, bias = PatchProjection(self.patch, channels, self.width, name="proj")()
    patches = images.astype(self.dtype).reshape(
      batch, height // self.patch, self.patch, width // self.patch, self.patch, channels
    )
    patches = patches.swapaxes(2, 3).reshape(batch, -1, self.patch**2 * channels)
    return patches @ kernel.reshape(-1, self.width).astype(self.dtype) + bias.astype(self.dtype)


class PatchProjection(nn.Module):
  """Holds the kernel and the bias of the patch embedding."""

  patch: int
  channels: int
  width: int

  @nn.compact
  def __call__(self):
    """Returns kernel ``[patch, patch, channels, width]`` and bias ``[width]``, float32."""
    shape = (self.patch, self.patch, self.channels, self.width)
    bias = self.param("bias", nn.initializers.zeros_init(), (self.width,), jnp.float32)
    return self.param("kernel", _init, shape, jnp.float32), bias


def _norm(dtype, name):
  return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)


def _resize_position(position, side, grid):
  """The position embedding ``[1, 1 + side^2, d]`` for another grid of patches."""
  if grid == (side, side):
    return position
  head, patches = position[:, :1], position[:, 1:]
  square = patches.reshape(1, side, side, -1)
  resized = jax.image.resize(square, (1, *grid, square.shape[-1]), method="cubic", antialias=True)
  return jnp.concatenate([head, resized.reshape(1, grid[0] * grid[1], -1)], axis=1)
