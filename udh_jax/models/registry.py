"""Backbones by name."""

import functools
import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.models.convnet import SmallConvNet
from udh_jax.models.convnext import ConvNeXt
from udh_jax.models.convolution import PADDINGS
from udh_jax.models.inverted_residual import EFFICIENTNET_B0, InvertedResidualNet
from udh_jax.models.resnet import ResNet
from udh_jax.models.vit import VisionTransformer

_EFFICIENTNET = functools.partial(
  InvertedResidualNet, plan=EFFICIENTNET_B0, activation="silu", squeeze=True
)
_EFFICIENTNET_LITE = functools.partial(InvertedResidualNet, plan=EFFICIENTNET_B0)
_TENSORFLOW: dict[str, Any] = {"padding": "same", "epsilon": 1e-3}
_VIT_BASE = functools.partial(VisionTransformer, width=768, heads=12)
_CLIP = functools.partial(_VIT_BASE, pre_norm=True, epsilon=1e-5)
_SIGLIP = functools.partial(_VIT_BASE, class_token=False)
_DINOV2: dict[str, Any] = {"patch": 14, "image_size": 518, "layer_scale": True}

# The names are timm's, but for our own small_convnet.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
  "convnext_tiny": ConvNeXt,
  "efficientnet_b0": _EFFICIENTNET,
  "efficientnet_lite0": _EFFICIENTNET_LITE,
  "mobilenetv2_100": InvertedResidualNet,
  "resnet18": functools.partial(ResNet, (2, 2, 2, 2), False),
  "resnet50": functools.partial(ResNet, (3, 4, 6, 3), True),
  "resnet101": functools.partial(ResNet, (3, 4, 23, 3), True),
  "small_convnet": SmallConvNet,
  "tf_efficientnet_b0": functools.partial(_EFFICIENTNET, **_TENSORFLOW),
  "tf_efficientnet_lite0": functools.partial(_EFFICIENTNET_LITE, **_TENSORFLOW),
  "vit_base_patch14_dinov2": functools.partial(_VIT_BASE, **_DINOV2),
  "vit_base_patch14_reg4_dinov2": functools.partial(_VIT_BASE, registers=4, **_DINOV2),
  "vit_base_patch16_224": _VIT_BASE,
  "vit_base_patch16_384": functools.partial(_VIT_BASE, image_size=384),
  "vit_base_patch16_clip_224": _CLIP,
  "vit_base_patch16_clip_quickgelu_224": functools.partial(_CLIP, activation="quick_gelu"),
  "vit_base_patch16_siglip_224": _SIGLIP,
  "vit_base_patch16_siglip_256": functools.partial(_SIGLIP, image_size=256),
  "vit_base_patch16_siglip_384": functools.partial(_SIGLIP, image_size=384),
  "vit_small_patch14_dinov2": functools.partial(VisionTransformer, **_DINOV2),
  "vit_small_patch14_reg4_dinov2": functools.partial(VisionTransformer, registers=4, **_DINOV2),
  "vit_small_patch16_224": VisionTransformer,
}


def create_backbone(
  name: str, *, dtype: Any = jnp.float32, padding: str | None = None
) -> nn.Module:
  """Makes a backbone: a module from normalised images to pooled features.

  Called with float32 images ``[b, h, w, 3]`` it returns float32 features ``[b, feature_dim]``, and
  with ``pooled=False`` the feature map ``[b, h', w', feature_dim]`` that they are pooled from.
  Parameters are in the collection "params", running statistics in "batch_stats"; these are
  frozen, in training too (see `udh_jax.models.layers.FrozenNorm`).

  Args:
    name: One of `BACKBONES`; the names are timm's, but for our own small_convnet.
    dtype: Of the computation, float32 or bfloat16; parameters and features are float32.
    padding: "symmetric" (PyTorch) or "same" (TensorFlow): what the weights were trained with. By
      default what the name stands for: "same" for those that start with ``tf_``.

  Returns:
    A Flax module with ``feature_dim``, ``image_size`` (the side of the images it is made for; it
    reads others too), ``side_multiple`` (what sides have to be multiples of), ``least_side``,
    ``classifier`` (what timm calls its classifier) and ``last_parts`` (see `is_last`).

  Raises:
    InputError: If the name, the dtype or the padding is unknown.
  """
  require(
    name in BACKBONES,
    lambda: f"backbone {name!r} is unknown; choose one of {', '.join(sorted(BACKBONES))}.",
  )
  require(
    padding is None or padding in PADDINGS,
    f"padding {padding!r} is unknown; choose one of {', '.join(PADDINGS)}.",
  )
  try:
    known = jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16)
  except TypeError:  # no type at all
    known = False
  require(known, f"dtype {dtype} is not supported; choose float32 or bfloat16.")
  return BACKBONES[name](dtype=dtype, **({} if padding is None else {"padding": padding}))


def is_last(backbone: str, part: str) -> bool:
  """Whether a top-level part of a backbone's parameters belongs to its end.

  That is about the last sixth of its layers, with what follows them: what a small collection can
  bear to train.

  Args:
    backbone: Its name.
    part: Name of the part. A backbone without a known end is all end.
  """
  return re.fullmatch(create_backbone(backbone).last_parts, part) is not None


def require_side(backbone: str, field: str, size: int) -> None:
  """Refuses a side of images that a backbone cannot read, before any work is done.

  Args:
    backbone: Its name.
    field: What the side is called in the message, such as ``teacher.image_size``.
    size: In pixels.

  Raises:
    InputError: If it is too small, or no multiple of the patch; the line names sides that fit.
  """
  module = create_backbone(backbone)
  step, least = module.side_multiple, max(module.least_side, module.side_multiple)
  require(
    size >= least, f"{field} is {size}; {backbone} reads images of {least} pixels a side and more."
  )
  below = size // step * step
  require(
    below == size,
    f"{field} is {size}; {backbone} reads patches of {step} pixels, so give a multiple of {step}, "
    f"such as {below} or {below + step}.",
  )
