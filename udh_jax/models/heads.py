"""Networks made of a backbone and a head."""

import flax.linen as nn
import jax.numpy as jnp

from udh_jax.errors import require


class Classifier(nn.Module):
  """A backbone with a linear classifier.

  Attributes:
    backbone: Maps images to features; see `create_backbone`.
    num_classes: Number of logits.
  """

  backbone: nn.Module
  num_classes: int

  def __post_init__(self):
    require(self.num_classes >= 1, f"num_classes is {self.num_classes}; at least 1 is needed.")
    super().__post_init__()

  @nn.compact
  def __call__(self, images):
    """Maps normalised images ``[b, h, w, 3]`` to float32 logits and features.

    Args:
      images: Array of shape ``[b, h, w, 3]``.

    Returns:
      Logits ``[b, num_classes]`` and features ``[b, d]``.
    """
    features = self.backbone(images)
    return nn.Dense(self.num_classes, dtype=jnp.float32, name="head")(features), features


class HashNetwork(nn.Module):
  """A backbone with a hash layer, and a classifier on the relaxed codes.

  Attributes:
    backbone: Maps images to features; see `create_backbone`.
    bits: Length of the codes.
    num_classes: Number of logits; 0 leaves the classifier out.
  """

  backbone: nn.Module
  bits: int
  num_classes: int

  def __post_init__(self):
    require(self.bits >= 1, f"bits is {self.bits}; at least 1 is needed.")
    require(self.num_classes >= 0, f"num_classes is {self.num_classes}; 0 is for no classifier.")
    super().__post_init__()

  @nn.compact
  def __call__(self, images):
    """Maps normalised images ``[b, h, w, 3]`` to relaxed codes and logits, float32.

    Args:
      images: Array of shape ``[b, h, w, 3]``.

    Returns:
      Relaxed codes u = tanh(H f) in (-1, 1), ``[b, bits]``, and logits V u, ``[b, num_classes]``,
      or None where there is no classifier.

    References:
      methods.md section 1, distil; the loss that uses them is our own definition.
    """
    features = self.backbone(images)
    relaxed = jnp.tanh(nn.Dense(self.bits, dtype=jnp.float32, name="hash")(features))
    if self.num_classes == 0:
      return relaxed, None
    logits = nn.Dense(self.num_classes, use_bias=False, dtype=jnp.float32, name="head")(relaxed)
    return relaxed, logits
