"""Trained image and text networks on their own: pictures or texts in, packed codes out."""

import functools
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from udh_jax.coding.binary import pack_codes, sign
from udh_jax.data.augmentation import normalise, resize
from udh_jax.data.words import ICU, cut, indicators
from udh_jax.encoders import published
from udh_jax.encoders.batches import Runs
from udh_jax.encoders.published import CONFIG, write_folder
from udh_jax.errors import require, require_finite
from udh_jax.files import write_atomically
from udh_jax.models.heads import IMAGE_HEADS, PairNetwork
from udh_jax.models.registry import create_backbone
from udh_jax.numerics import in_float32
from udh_jax.records import TEXTS, number, one_of, require_fields, whole

FORMAT, VERSION = "udh_jax pair encoder", 1
NETWORKS = "networks.safetensors"
# Of `PairNetwork`, besides the backbone and the length of the codes.
LAYER_FIELDS = ("hidden", "dropout", "image_head", "directions")
FIELDS = {
  **published.FIELDS,
  "hidden": whole(1, 1 << 20),
  "dropout": number(0, 1),
  "directions": whole(0, 1 << 20),
  "image_width": whole(0, 1 << 30),
  "text_width": whole(1, 1 << 30),
  "words": TEXTS,
}
# Fields that encoders of earlier versions lack, and what they mean there.
_LATER = {"tokenizer": "", "image_head": "linear", "directions": 0}
_READ = ("backbone", "padding", "dtype", "image_size", "mean", "std", "bits", *LAYER_FIELDS)


def pair_module(about: Mapping[str, Any], dtype: str) -> PairNetwork:
  """The module that a pair network's variables belong to.

  Args:
    about: ``bits``, `LAYER_FIELDS`, ``backbone`` ("" where images are features) and ``padding``.
    dtype: Of the backbone's arithmetic.
  """
  backbone = None
  if about["backbone"]:
    backbone = create_backbone(about["backbone"], dtype=jnp.dtype(dtype), padding=about["padding"])
  about = {**_LATER, **about}
  layers = {name: about[name] for name in LAYER_FIELDS}
  return PairNetwork(about["bits"], backbone=backbone, **layers)


def image_outputs_of(
  variables: Mapping[str, Any],
  images: jax.Array,
  about: Mapping[str, Any],
  *,
  from_features: bool = False,
) -> jax.Array:
  """What the network of images says of them, whose signs are their codes; pure.

  Args:
    variables: Of a `PairNetwork`.
    images: uint8 pictures ``[b, h, w, 3]``, or float32 features ``[b, d]``.
    about: See `PairEncoder`.
    from_features: Whether ``images`` are the backbone's features of pictures.

  Returns:
    h, float32 ``[b, bits]``.
  """
  if about["backbone"] and not from_features:
    images = normalise(resize(images, size=about["image_size"]), about["mean"], about["std"])
  module = pair_module(about, about["dtype"])
  outputs: Any = module.apply(variables, images, from_features=from_features, method="image")
  return outputs


def image_codes_of(
  variables: Mapping[str, Any],
  images: jax.Array,
  about: Mapping[str, Any],
  *,
  from_features: bool = False,
) -> jax.Array:
  """Codes sign(h) of images, uint8 ``[b, ceil(bits / 8)]``; as `image_outputs_of`."""
  return pack_codes(sign(image_outputs_of(variables, images, about, from_features=from_features)))


def text_outputs_of(
  variables: Mapping[str, Any], texts: jax.Array, about: Mapping[str, Any]
) -> jax.Array:
  """What the network of texts says of them, whose signs are their codes; pure.

  Args:
    variables: Of a `PairNetwork`.
    texts: Tags, counts or features ``[b, t]``.
    about: See `PairEncoder`.

  Returns:
    h, float32 ``[b, bits]``.
  """
  module = pair_module(about, about["dtype"])
  outputs: Any = module.apply(variables, texts, method="text")
  return outputs


def text_codes_of(
  variables: Mapping[str, Any], texts: jax.Array, about: Mapping[str, Any]
) -> jax.Array:
  """Codes sign(h) of texts, uint8 ``[b, ceil(bits / 8)]``; as `text_outputs_of`."""
  return pack_codes(sign(text_outputs_of(variables, texts, about)))


class PairEncoder(Runs):
  """Trained networks of images and texts into one space of codes.

  Attributes:
    about: ``bits``, `LAYER_FIELDS`, ``backbone`` with ``padding``, ``mean``, ``std``,
      ``dtype`` and ``image_size``; ``picture_size`` (side of decoded picture files, 0 where images
      are features), ``image_width`` (of features, else 0), ``text_width``, ``words`` (the
      vocabulary, may be empty), ``tokenizer`` (how texts are cut into words: "icu" is
      `udh_jax.data.words.cut`, "" takes what stands between blanks or commas as it is),
      ``labels_used``, ``method`` and ``scores``.
    variables: Of a `PairNetwork`.
  """

  def __init__(self, variables: Mapping[str, Any], about: Mapping[str, Any]):
    self.variables = in_float32(variables)
    self.about = {**_LATER, **about}
    self._columns = {word: column for column, word in enumerate(self.about["words"])}
    self._images = jax.jit(lambda variables, rows: image_codes_of(variables, rows, self.about))
    self._texts = jax.jit(lambda variables, rows: text_codes_of(variables, rows, self.about))
    self._of_images = jax.jit(lambda variables, rows: image_outputs_of(variables, rows, self.about))
    self._of_texts = jax.jit(lambda variables, rows: text_outputs_of(variables, rows, self.about))

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """The same as `images`, so that it stands where an `udh_jax.encoders.image.Encoder` does."""
    return self.images(images)

  def images(self, images: np.ndarray) -> np.ndarray:
    """Codes of images.

    Args:
      images: uint8 pictures ``[b, h, w, 3]`` or features ``[b, image_width]``, as in training.

    Returns:
      Packed codes, uint8 array of shape ``[b, ceil(bits / 8)]``.

    Raises:
      InputError: If the dtype or shape is another, or a feature is not finite.
    """
    return self._codes(self._images, self._given_images(images))

  def outputs(self, images: np.ndarray) -> np.ndarray:
    """What the network of images says of them, for `udh_jax.retrieval.asymmetric_search`.

    Args:
      images: As of `images`.

    Returns:
      Float32 array of shape ``[b, bits]``. Its signs are the codes, but for rounding near 0.

    Raises:
      InputError: As `images`.
    """
    return self._real(self._of_images, self._given_images(images))

  def _given_images(self, images) -> np.ndarray:
    images, width = np.asarray(images), self.about["image_width"]
    if width:
      require(
        images.ndim == 2 and images.shape[1] == width and images.dtype.kind in "biuf",
        f"PairEncoder: images are {images.dtype} of shape {images.shape}, expected features "
        f"[b, {width}].",
      )
      require_finite("PairEncoder: images", images)
      return images.astype(np.float32)
    require(
      images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8,
      f"PairEncoder: images are {images.dtype} of shape {images.shape}, expected uint8 "
      "[b, h, w, 3].",
    )
    return images

  def texts(self, texts: np.ndarray | Sequence[str | Sequence[str]]) -> np.ndarray:
    """Codes of texts.

    Args:
      texts: Tags, counts or features ``[b, text_width]``, as in training; or, where the encoder
        has a vocabulary, b texts as plain strings (see `words_of`), or as lists of its words.
        Words that the vocabulary lacks are left out, with one warning.

    Returns:
      Packed codes, uint8 array of shape ``[b, ceil(bits / 8)]``.

    Raises:
      InputError: If the width is another, a value is not finite, words are given and there is no
        vocabulary, or a text is given alone.
    """
    return self._codes(self._texts, self._given_texts(texts))

  def text_outputs(self, texts: np.ndarray | Sequence[str | Sequence[str]]) -> np.ndarray:
    """What the network of texts says of them, for `udh_jax.retrieval.asymmetric_search`.

    Args:
      texts: As of `texts`.

    Returns:
      Float32 array of shape ``[b, bits]``. Its signs are the codes, but for rounding near 0.

    Raises:
      InputError: As `texts`.
    """
    return self._real(self._of_texts, self._given_texts(texts))

  def _given_texts(self, texts) -> np.ndarray:
    width = self.about["text_width"]
    require(
      not isinstance(texts, str),
      f"PairEncoder: texts are one string, {texts!r}; give a list of texts: [text].",
    )
    if not isinstance(texts, np.ndarray | jax.Array):
      texts = self._indicators(texts)
    require(
      texts.ndim == 2 and texts.shape[1] == width and texts.dtype.kind in "biuf",
      f"PairEncoder: texts are {texts.dtype} of shape {texts.shape}, expected [b, {width}]: one "
      "column for each word of the vocabulary, or feature, of the training texts.",
    )
    require_finite("PairEncoder: texts", texts)
    return np.asarray(texts, np.float32)

  def _indicators(self, texts) -> np.ndarray:
    """Which words of the vocabulary each text has."""
    require(
      bool(self._columns),
      "PairEncoder: texts are given as words, but the training texts were features without a "
      f"vocabulary; give an array [b, {self.about['text_width']}].",
    )
    cut_texts = [self.words_of(text) if isinstance(text, str) else list(text) for text in texts]
    unknown = {word for text in cut_texts for word in text} - self._columns.keys()
    if unknown:
      logging.getLogger(__name__).warning(
        "%d words are not in the vocabulary of %d and are left out: %s",
        len(unknown),
        len(self._columns),
        ", ".join(sorted(unknown)[:5]),
      )
    return indicators(cut_texts, self.about["words"])

  def words_of(self, text: str) -> list[str]:
    """The words of a text, as the training texts were cut.

    Args:
      text: Any text where ``tokenizer`` is "icu"; else words separated by commas, if there is one,
        or by blanks.

    Raises:
      InputError: If ICU is needed and not installed.
    """
    if self.about["tokenizer"] == ICU:
      return cut(text)
    words = text.split(",") if "," in text else text.split()
    return [word.strip() for word in words if word.strip()]

  @functools.cached_property
  def digest(self) -> str:
    """SHA-256 of all that decides the codes."""
    made_of = {key: self.about[key] for key in (*_READ, "picture_size", "words", *_LATER)}
    made_of = {key: value for key, value in made_of.items() if value != _LATER.get(key)}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for name, leaf in sorted(_flat(self.variables).items()):
      digest.update(name.encode())
      digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()

  def save(self, folder: str | os.PathLike) -> None:
    """Writes a folder that can be published and that `udh_jax.load_encoder` reads.

    ``networks.safetensors`` holds both networks, ``config.json`` the rest; it is written last, so
    that a folder without it is not an encoder.

    Raises:
      InputError: If the folder cannot be written to.
    """
    from safetensors.numpy import save

    data = save({name: np.ascontiguousarray(leaf) for name, leaf in _flat(self.variables).items()})

    def write_parts(folder):
      write_atomically(folder / NETWORKS, lambda file: file.write(data))

    about = {"format": FORMAT, "version": VERSION, "digest": self.digest, **self.about}
    write_folder(folder, write_parts, about)


def _flat(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
  flat = traverse_util.flatten_dict(dict(variables), sep="/")
  return {name: np.asarray(leaf) for name, leaf in flat.items()}


def read_pair_encoder(networks: pathlib.Path, about: dict[str, Any]) -> PairEncoder:
  """The encoder of a file of networks and of what ``config.json`` says of them.

  Args:
    networks: Safetensors file.
    about: With `FIELDS`.

  Raises:
    InputError: If the file is damaged or another's.
  """
  config = networks.with_name(CONFIG)
  digest = about.pop("digest")
  for name, value in _LATER.items():
    about.setdefault(name, value)
  require_fields(config, about, {"tokenizer": one_of("", ICU), "image_head": one_of(*IMAGE_HEADS)})
  pictures = bool(about["backbone"])
  if pictures:
    require_fields(config, about, published.BACKBONE_FIELDS)
  require(
    pictures == bool(about["picture_size"]) != bool(about["image_width"]),
    f"{config} is damaged: backbone {about['backbone']!r}, picture_size {about['picture_size']} "
    f"and image_width {about['image_width']} contradict each other; fetch it again.",
  )
  tensors = published.read_tensors(networks, _shapes(about))
  encoder = PairEncoder(traverse_util.unflatten_dict(tensors, sep="/"), about)
  require(
    encoder.digest == digest,
    f"{networks} is damaged: its tensors do not match the checksum in {CONFIG}; fetch it again.",
  )
  return encoder


def _shapes(about: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
  """The shape of each variable of a pair network, by name."""
  image_shape = (224, 224, 3) if about["backbone"] else (about["image_width"],)
  examples = (
    jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    for shape in (image_shape, (about["text_width"],))
  )
  tree = jax.eval_shape(pair_module(about, about["dtype"]).init, jax.random.key(0), *examples)
  return {name: leaf.shape for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()}
