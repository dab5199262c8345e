"""Networks made of a backbone and a head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from udh_jax.errors import require
from udh_jax.numerics import matmul


def float32_layer(width: int, *, use_bias: bool = True, name: str | None = None) -> nn.Dense:
  """A linear layer in full float32, for outputs that are decided on: whose signs are bits.

  Accelerators round the factors of products to fewer bits by default. Training, encoding and other
  devices would then differ in the sign of an output near 0.

  Args:
    width: Of the outputs.
    use_bias: Whether it has one.
    name: Of the layer.
  """
  return nn.Dense(width, use_bias, dtype=jnp.float32, precision="highest", name=name)


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
  def __call__(self, images, *, from_features: bool = False):
    """Maps normalised images ``[b, h, w, 3]`` to float32 logits and features.

    Args:
      images: Array of shape ``[b, h, w, 3]``; features ``[b, d]`` where ``from_features``.
      from_features: Whether ``images`` are what the backbone made of images.

    Returns:
      Logits ``[b, num_classes]`` and features ``[b, d]``.
    """
    features = images if from_features else self.backbone(images)
    return float32_layer(self.num_classes, name="head")(features), features


CLASSIFIERS = ("codes", "features")  # What the classifier of a hash network reads.


class HashNetwork(nn.Module):
  """A backbone with a hash layer, and a classifier on the relaxed codes or on the features.

  Attributes:
    backbone: Maps images to features; see `create_backbone`.
    bits: Length of the codes.
    num_classes: Number of logits; 0 leaves the classifier out.
    classifier: What the classifier reads, one of `CLASSIFIERS`. On "codes" it teaches the hash
      layer, and the backbone through it; on "features" the backbone alone.
  """

  backbone: nn.Module
  bits: int
  num_classes: int
  classifier: str = "codes"

  def __post_init__(self):
    require(self.bits >= 1, f"bits is {self.bits}; at least 1 is needed.")
    require(self.num_classes >= 0, f"num_classes is {self.num_classes}; 0 is for no classifier.")
    require(
      self.classifier in CLASSIFIERS,
      f"classifier is {self.classifier!r}; give one of {', '.join(CLASSIFIERS)}.",
    )
    super().__post_init__()

  @nn.compact
  def __call__(self, images, *, from_features: bool = False):
    """Maps normalised images ``[b, h, w, 3]`` to relaxed codes and logits, float32.

    Args:
      images: Array of shape ``[b, h, w, 3]``; features ``[b, d]`` where ``from_features``.
      from_features: Whether ``images`` are what the backbone made of images.

    Returns:
      Relaxed codes u = tanh(H f) in (-1, 1), ``[b, bits]``, and logits V u or V f,
      ``[b, num_classes]``, or None where there is no classifier.

    References:
      docs/method.md#udh-ecc, distil; the loss that uses them is our own definition.
    """
    features = images if from_features else self.backbone(images)
    relaxed = jnp.tanh(float32_layer(self.bits, name="hash")(features))
    if self.num_classes == 0:
      return relaxed, None
    read = relaxed if self.classifier == "codes" else features
    logits = float32_layer(self.num_classes, use_bias=False, name="head")(read)
    return relaxed, logits


IMAGE_HEADS = ("linear", "perceptron")


class PairNetwork(nn.Module):
  """An image network and a text network into one space of bits.

  ``image`` and ``text`` give real-valued outputs h; the relaxed code is tanh(alpha h), the code
  sign(h).

  Attributes:
    bits: Length of the codes.
    hidden: Width of the hidden layer of the text network, and of the image network on features.
    backbone: Of the image network on pictures, see `create_backbone`; None where images are
      features.
    dropout: Share of the inputs and hidden units of the image network on features that is left out
      in training.
    image_head: What stands on the backbone: "linear", a layer, or "perceptron", the network on
      features, for a backbone that is not trained.
    directions: How many directions of the images' features the network on features reads; 0 reads
      the features themselves.

  References:
    Su et al., DJSRH, ICCV 2019: Linear - ReLU - Linear for texts, a convolutional network and a
    linear layer for pictures. Scaling and dropout are our own.
  """

  bits: int
  hidden: int = 4096
  backbone: nn.Module | None = None
  dropout: float = 0.0
  image_head: str = "linear"
  directions: int = 0

  def __post_init__(self):
    require(self.bits >= 1, f"bits is {self.bits}; at least 1 is needed.")
    require(
      self.image_head in IMAGE_HEADS,
      f"image_head is {self.image_head!r}; choose one of {', '.join(IMAGE_HEADS)}.",
    )
    require(self.hidden >= 1, f"hidden is {self.hidden}; at least 1 is needed.")
    require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it has to be in [0, 1).")
    super().__post_init__()

  def setup(self) -> None:
    """Makes the layers."""
    self.text_layers = Perceptron(self.bits, self.hidden, 0.0)
    self.image_layers: nn.Module
    if self.backbone is not None and self.image_head == "linear":
      self.image_layers = float32_layer(self.bits)
    else:
      self.image_layers = Perceptron(self.bits, self.hidden, self.dropout, self.directions)

  def image(
    self, images: jax.Array, *, train: bool = False, from_features: bool = False
  ) -> jax.Array:
    """Maps images to outputs ``[b, bits]``.

    Args:
      images: Normalised pictures ``[b, h, w, 3]``; features ``[b, d]`` where there is no backbone.
      train: Whether units are left out.
      from_features: Whether ``images`` are the backbone's features of pictures.
    """
    if self.backbone is not None and not from_features:
      images = self.backbone(images)
    if isinstance(self.image_layers, Perceptron):
      return self.image_layers(images, train)
    return self.image_layers(images)

  def text(self, texts: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps tags, counts or features ``[b, t]`` to outputs ``[b, bits]``."""
    return self.text_layers(texts, train)

  def __call__(self, images, texts, *, train: bool = False, from_features: bool = False):
    """Outputs of both networks: ``[b, bits]`` each."""
    image = self.image(images, train=train, from_features=from_features)
    return image, self.text(texts, train=train)


class Perceptron(nn.Module):
  """One hidden layer on inputs that are brought to mean 0 and variance 1, column by column.

  ``mean`` and ``scale`` of the inputs, and the directions of theirs that are read, are fixed before
  training: the variables ``scaling``.

  Attributes:
    outputs: Width of the last layer.
    hidden: Width of the hidden layer.
    dropout: Share of inputs and hidden units that is left out in training.
    directions: How many directions of the inputs are read in their place; 0 is none.
  """

  outputs: int
  hidden: int
  dropout: float
  directions: int = 0

  @nn.compact
  def __call__(self, inputs, train: bool = False):
    """Maps ``[b, d]`` to ``[b, outputs]``, float32."""
    width, inputs = inputs.shape[-1], inputs.astype(jnp.float32)
    if self.directions:
      shape = (width, self.directions)
      turn = self.variable("scaling", "directions", jnp.zeros, shape, jnp.float32).value
      width, inputs = self.directions, matmul(inputs, turn)
    mean = self.variable("scaling", "mean", jnp.zeros, (width,), jnp.float32).value
    scale = self.variable("scaling", "scale", jnp.ones, (width,), jnp.float32).value
    rows = (inputs - mean) * scale
    rows = nn.Dropout(self.dropout, deterministic=not train)(rows)
    rows = nn.relu(float32_layer(self.hidden, name="hidden")(rows))
    rows = nn.Dropout(self.dropout, deterministic=not train)(rows)
    return float32_layer(self.outputs, name="output")(rows)
