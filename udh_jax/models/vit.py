"""Vision transformers: plain, DINOv2's, and the image towers of CLIP and SigLIP."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from udh_jax.models.layers import (
  Affine,
  Perceptron,
  Scale,
  attend,
  layer_norm,
  project_patches,
  require_sides,
  token_init,
)


class Attention(nn.Module):
  """Multi-head self-attention."""

  heads: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, tokens):
    """Maps ``[b, t, d]`` to ``[b, t, d]``."""
    width = tokens.shape[-1]
    dense = {"kernel_init": token_init, "dtype": self.dtype}
    together = nn.Dense(3 * width, name="qkv", **dense)(tokens)
    together = together.reshape(*tokens.shape[:2], 3, self.heads, width // self.heads)
    query, key, value = jnp.moveaxis(together, 2, 0)  # [b, t, heads, d / heads] each
    return nn.Dense(width, name="proj", **dense)(attend(query, key, value))


class AttentionPool(nn.Module):
  """One learned query looks at all tokens.

  References:
    Zhai et al., Scaling Vision Transformers, CVPR 2022, section 3.2 (MAP head).
  """

  heads: int
  dtype: jnp.dtype
  epsilon: float
  activation: str

  @nn.compact
  def __call__(self, tokens):
    """Maps ``[b, t, d]`` to ``[b, d]``."""
    batch, count, width = tokens.shape
    dense = {"kernel_init": token_init, "dtype": self.dtype}
    latent = self.param("latent", token_init, (1, 1, width), jnp.float32)
    query = nn.Dense(width, name="q", **dense)(latent.astype(self.dtype))
    query = jnp.broadcast_to(query, (batch, 1, width)).reshape(batch, 1, self.heads, -1)
    together = nn.Dense(2 * width, name="kv", **dense)(tokens)
    together = together.reshape(batch, count, 2, self.heads, width // self.heads)
    key, value = jnp.moveaxis(together, 2, 0)  # [b, t, heads, d / heads] each
    found = nn.Dense(width, name="proj", **dense)(attend(query, key, value))[:, 0]
    normalised = layer_norm(self.dtype, "norm", self.epsilon)(found)
    return found + Perceptron(self.dtype, self.activation, name="mlp")(normalised)


class Block(nn.Module):
  """Attention, then a perceptron, each on normalised tokens and added to them."""

  heads: int
  dtype: jnp.dtype
  epsilon: float
  activation: str
  layer_scale: bool

  @nn.compact
  def __call__(self, tokens):
    """Maps ``[b, t, d]`` to ``[b, t, d]``."""
    parts = (
      ("norm1", Attention(self.heads, self.dtype, name="attn"), "ls1"),
      ("norm2", Perceptron(self.dtype, self.activation, name="mlp"), "ls2"),
    )
    for norm, part, scale in parts:
      change = part(layer_norm(self.dtype, norm, self.epsilon)(tokens))
      tokens += Scale(name=scale)(change) if self.layer_scale else change
    return tokens


class VisionTransformer(nn.Module):
  """Vision transformer.

  Its features are the class token's, or where there is none, those that one learned query gathers
  from all tokens. For images of another side than ``image_size`` the position embedding is resized
  as timm does (bicubic, antialiased).

  Attributes:
    dtype: Of the computation; parameters and features are float32.
    padding: "symmetric" or "same"; the same here, where patches do not overlap.
    patch: Side of a patch.
    width: Of a token; the length of the features.
    depth: Number of blocks.
    heads: Of the attention; a divisor of ``width``.
    image_size: Side of the images that the position embedding was learned on.
    class_token: Whether there is one (CLIP, DINOv2), or tokens are gathered (SigLIP).
    registers: Number of further tokens that are thrown away. With them the class token has no
      position.
    pre_norm: Whether tokens are normalised before the first block; patches then have no bias.
    layer_scale: Whether each channel of a block's change has a factor; see `Scale`.
    activation: "gelu" or "quick_gelu".
    epsilon: Of the normalisations.

  References:
    Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021; Oquab et al., DINOv2, TMLR 2024;
    Darcet et al., Vision Transformers Need Registers, ICLR 2024; Radford et al., Learning
    Transferable Visual Models From Natural Language Supervision, ICML 2021; Zhai et al., Sigmoid
    Loss for Language Image Pre-Training, ICCV 2023.
  """

  dtype: jnp.dtype = jnp.float32
  padding: str = "symmetric"
  patch: int = 16
  width: int = 384
  depth: int = 12
  heads: int = 6
  image_size: int = 224
  class_token: bool = True
  registers: int = 0
  pre_norm: bool = False
  layer_scale: bool = False
  activation: str = "gelu"
  epsilon: float = 1e-6

  classifier = "head"
  least_side = 1

  @property
  def feature_dim(self) -> int:
    """Length of the features."""
    return self.width

  @property
  def side_multiple(self) -> int:
    """What sides of images have to be multiples of."""
    return self.patch

  @property
  def last_parts(self) -> str:
    """Pattern of the parts that are its end: the last two blocks, and what follows."""
    return rf"blocks_({self.depth - 2}|{self.depth - 1})|norm|attn_pool"

  @nn.compact
  def __call__(self, images, *, pooled: bool = True):
    """Maps normalised images ``[b, h, w, 3]`` to float32 features ``[b, width]``.

    Without ``pooled`` it gives the tokens of the patches as a feature map, ``[b, h / patch,
    w / patch, width]``, through the same last normalisation.

    Raises:
      InputError: If a side is not a multiple of the patch.
    """
    require_sides(images, multiple=self.patch, least=self.patch)
    batch = len(images)
    patches = PatchEmbedding(
      self.patch, self.width, not self.pre_norm, self.dtype, name="patch_embed"
    )(images.astype(self.dtype))  # [b, h / patch, w / patch, width]
    grid = patches.shape[1:3]
    tokens = patches.reshape(batch, -1, self.width)
    position = self._position(grid).astype(self.dtype)
    if self.class_token and not self.registers:
      tokens = jnp.concatenate([self._token("cls_token", 1, batch), tokens], axis=1) + position
    else:
      tokens += position
    if self.registers:
      first = self._token("cls_token", 1, batch), self._token("reg_token", self.registers, batch)
      tokens = jnp.concatenate([*first, tokens], axis=1)
    if self.pre_norm:
      tokens = layer_norm(self.dtype, "norm_pre", self.epsilon)(tokens)
    kind: dict[str, Any] = {"epsilon": self.epsilon, "activation": self.activation}
    for block in range(self.depth):
      name = f"blocks_{block}"
      tokens = Block(self.heads, self.dtype, layer_scale=self.layer_scale, name=name, **kind)(
        tokens
      )
    norm = layer_norm(self.dtype, "norm", self.epsilon)
    if not pooled:
      patches = norm(tokens[:, -grid[0] * grid[1] :])
      return patches.astype(jnp.float32).reshape(batch, *grid, self.width)
    if self.class_token:
      return norm(tokens[:, 0]).astype(jnp.float32)
    pool = AttentionPool(self.heads, self.dtype, name="attn_pool", **kind)
    return pool(norm(tokens)).astype(jnp.float32)

  def _token(self, name, count, batch):
    token = self.param(name, token_init, (1, count, self.width), jnp.float32)
    return jnp.broadcast_to(token.astype(self.dtype), (batch, count, self.width))

  def _position(self, grid):
    """The position embedding for a grid of patches, ``[1, t, d]``, the class token's first."""
    side = self.image_size // self.patch
    first = int(self.class_token and not self.registers)
    shape = (1, first + side * side, self.width)
    position = self.param("pos_embed", token_init, shape, jnp.float32)
    if grid == (side, side):
      return position
    square = position[:, first:].reshape(1, side, side, self.width)
    shape = (1, *grid, self.width)
    resized = jax.image.resize(square, shape, method="cubic", antialias=True)
    return jnp.concatenate([position[:, :first], resized.reshape(1, -1, self.width)], axis=1)


class PatchEmbedding(nn.Module):
  """A linear map of each patch."""

  patch: int
  width: int
  use_bias: bool
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, images):
    """Maps ``[b, h, w, c]`` to ``[b, h / patch, w / patch, width]``."""
    shape = (self.patch, self.patch, images.shape[-1], self.width)
    return project_patches(images, *Affine(shape, self.use_bias, self.dtype, name="proj")())
