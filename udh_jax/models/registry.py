"""Backbones by name."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.models.convnet import SmallConvNet
from udh_jax.models.convolution import PADDINGS
from udh_jax.models.mobilenet import MobileNetV2
from udh_jax.models.resnet import ResNet
from udh_jax.models.vit import VisionTransformer

BACKBONES: dict[str, Callable[..., nn.Module]] = {
  "mobilenetv2_100": MobileNetV2,
  "resnet18": functools.partial(ResNet, (2, 2, 2, 2), False),
  "resnet50": functools.partial(ResNet, (3, 4, 6, 3), True),
  "small_convnet": SmallConvNet,
  "vit_small_patch16_224": VisionTransformer,
}


def create_backbone(
  name: str, *, dtype: Any = jnp.float32, padding: str = "symmetric"
) -> nn.Module:
  """Makes a backbone: a module from normalised images to pooled features.

  Called with float32 images ``[b, h, w, 3]`` it returns float32 features ``[b, feature_dim]``, and
  with ``pooled=False`` the feature map ``[b, h', w', feature_dim]`` that they are pooled from.
  Parameters are in the collection "params", running statistics in "batch_stats"; these are
  frozen, in training too (see `udh_jax.models.layers.FrozenNorm`).

  Args:
    name: One of `BACKBONES`; the names are timm's, but for our own small_convnet.
    dtype: Of the computation, float32 or bfloat16; parameters and features are float32.
    padding: "symmetric" (PyTorch) or "same" (TensorFlow): what the weights were trained with.

  Returns:
    A Flax module with the properties ``feature_dim`` and ``last_parts``.

  Raises:
    InputError: If the name, the dtype or the padding is unknown.
  """
  require(
    name in BACKBONES,
    lambda: f"backbone {name!r} is unknown; choose one of {', '.join(sorted(BACKBONES))}.",
  )
  require(
    padding in PADDINGS,
    f"padding {padding!r} is unknown; choose one of {', '.join(PADDINGS)}.",
  )
  require(
    jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16),
    f"dtype {jnp.dtype(dtype)} is not supported; choose float32 or bfloat16.",
  )
  return BACKBONES[name](dtype=dtype, padding=padding)
