"""A trained hash network on its own: pictures in, packed codes out."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from udh_jax.arrays import Array, jax_or_numpy
from udh_jax.coding.binary import pack_codes, sign
from udh_jax.data.augmentation import normalise, resize
from udh_jax.encoders import published
from udh_jax.encoders.batches import Runs
from udh_jax.encoders.published import CONFIG, write_folder
from udh_jax.errors import InputError, require
from udh_jax.files import require_writable, write_atomically
from udh_jax.models.heads import float32_layer
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import load_weights, save_weights
from udh_jax.numerics import in_float32

FORMAT, VERSION = "udh_jax encoder", 1
BACKBONE, HASH_LAYER = "model.safetensors", "hash_layer.safetensors"
FIELDS = {**published.FIELDS, **published.BACKBONE_FIELDS}


def outputs_of(
  variables: Mapping[str, Any], images: jax.Array, about: Mapping[str, Any]
) -> jax.Array:
  """What the hash layer says of images, whose signs are their codes; pure.

  Args:
    variables: ``backbone``, the variables of the backbone, and ``hash``, ``kernel`` ``[d, bits]``
      and ``bias`` ``[bits]``.
    images: uint8 array of shape ``[b, h, w, 3]``.
    about: ``backbone``, ``padding``, ``dtype``, ``image_size``, ``mean``, ``std`` and ``bits``.

  Returns:
    H f, float32 ``[b, bits]``.
  """
  backbone = create_backbone(
    about["backbone"], dtype=jnp.dtype(about["dtype"]), padding=about["padding"]
  )
  view = normalise(resize(images, size=about["image_size"]), about["mean"], about["std"])
  features: Any = backbone.apply(variables["backbone"], view)
  outputs: Any = float32_layer(about["bits"]).apply({"params": variables["hash"]}, features)
  return outputs


def codes_of(
  variables: Mapping[str, Any], images: jax.Array, about: Mapping[str, Any]
) -> jax.Array:
  """Codes of images; pure.

  Args:
    variables: As of `outputs_of`.
    images: uint8 array of shape ``[b, h, w, 3]``.
    about: As of `outputs_of`.

  Returns:
    Packed codes of sign(tanh(H f)), uint8 ``[b, ceil(bits / 8)]``.
  """
  return pack_codes(sign(jnp.tanh(outputs_of(variables, images, about))))


READ_BY_CODES_OF = ("backbone", "padding", "dtype", "image_size", "mean", "std", "bits")


class Encoder(Runs):
  """A trained hash network.

  Attributes:
    about: What `codes_of` reads, and ``picture_size`` (the side of the square that picture files
      are decoded to, as in training), ``labels_used`` (behind the network's first weights),
      ``method`` and ``scores``.
    variables: See `codes_of`.
  """

  def __init__(self, variables: Mapping[str, Any], about: Mapping[str, Any]):
    self.variables = in_float32(variables)
    self.about = dict(about)
    self._encode = jax.jit(lambda variables, images: codes_of(variables, images, self.about))
    self._outputs = jax.jit(lambda variables, images: outputs_of(variables, images, self.about))

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Codes of images.

    Args:
      images: uint8 array of shape ``[b, h, w, 3]``, as `decode_picture` makes them. Those of NumPy
        are filled up to few sizes, as each is compiled once; those of JAX are taken as they are.

    Returns:
      Packed codes, uint8 array of shape ``[b, ceil(bits / 8)]``.

    Raises:
      InputError: If the dtype or shape is another.
    """
    return self._codes(self._encode, self._given(images))

  def outputs(self, images: np.ndarray) -> np.ndarray:
    """What the hash layer says of images, for `udh_jax.retrieval.asymmetric_search`.

    Args:
      images: As of a call.

    Returns:
      Float32 array of shape ``[b, bits]``. Its signs are the codes, but for rounding near 0.

    Raises:
      InputError: If the dtype or shape is another.
    """
    return self._real(self._outputs, self._given(images))

  def _given(self, images) -> Array:
    try:
      given = jax_or_numpy(images)
    except ValueError:  # of several sizes
      given = np.array(None)
    size = self.about["picture_size"]
    require(
      given.ndim == 4 and given.shape[3] == 3 and given.dtype == np.uint8,
      lambda: (
        f"Encoder: images are {given.dtype} of shape {given.shape}, expected uint8 [b, h, w, 3]; "
        f"udh_jax.data.pictures.read_picture(path, {size}) reads a file so."
      ),
    )
    return given

  @functools.cached_property
  def digest(self) -> str:
    """SHA-256 of all that decides the codes."""
    made_of = {key: self.about[key] for key in (*READ_BY_CODES_OF, "picture_size")}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for leaf in jax.tree.leaves(dict(self.variables)):  # in the order of their names
      digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()

  def save(self, folder: str | os.PathLike) -> None:
    """Writes a folder that can be published and that `load_encoder` reads.

    ``model.safetensors`` holds the backbone in timm's naming, ``hash_layer.safetensors`` the hash
    layer, ``config.json`` the rest; it is written last: a folder without it is not an encoder.

    Raises:
      InputError: If the folder cannot be written to.
    """
    from safetensors.numpy import save

    hash_layer = {
      "hash.weight": np.ascontiguousarray(np.asarray(self.variables["hash"]["kernel"]).T),
      "hash.bias": np.asarray(self.variables["hash"]["bias"]),
    }
    data = save(hash_layer)

    def write_parts(folder):
      save_weights(self.about["backbone"], self.variables["backbone"], folder / BACKBONE)
      write_atomically(folder / HASH_LAYER, lambda file: file.write(data))

    about = {"format": FORMAT, "version": VERSION, "digest": self.digest, **self.about}
    write_folder(folder, write_parts, about)

  def export(self, path: str | os.PathLike) -> None:
    """Writes one file that encodes images where only JAX, NumPy and flatbuffers are installed.

    There, ``jax.export.deserialize(bytearray(open(path, "rb").read())).call(images)`` gives the
    packed codes of uint8 images ``[b, picture_size, picture_size, 3]``, for any b, on a CPU, a GPU
    or a TPU.

    Raises:
      InputError: If the file cannot be written.
    """
    from jax import export

    require_writable(path)
    variables = jax.tree.map(jnp.asarray, dict(self.variables))
    side = self.about["picture_size"]
    images = jax.ShapeDtypeStruct(export.symbolic_shape(f"b, {side}, {side}, 3"), jnp.uint8)
    exported = export.export(
      jax.jit(lambda images: codes_of(variables, images, self.about)),
      platforms=("cpu", "cuda", "tpu"),
    )(images)
    data = exported.serialize()
    try:
      write_atomically(path, lambda file: file.write(data))
    except OSError as error:
      raise InputError(
        f"{os.fspath(path)} cannot be written ({error.strerror}); give another path."
      ) from error


def read_image_encoder(backbone: pathlib.Path, hash_layer: pathlib.Path, about: dict) -> Encoder:
  """The encoder of a file of a backbone, one of a hash layer and what ``config.json`` says.

  Args:
    backbone: Safetensors file.
    hash_layer: Likewise.
    about: With `FIELDS`.

  Raises:
    InputError: If a file is damaged or another's.
  """
  digest = about.pop("digest")
  variables = load_weights(about["backbone"], backbone).variables
  width = create_backbone(about["backbone"]).feature_dim
  encoder = Encoder(
    {"backbone": variables, "hash": _hash_layer(hash_layer, width, about["bits"])}, about
  )
  require(
    encoder.digest == digest,
    f"{backbone.parent} is damaged: its tensors do not match the checksum in {CONFIG}; fetch it "
    "again.",
  )
  return encoder


def _hash_layer(file: pathlib.Path, width: int, bits: int) -> dict[str, np.ndarray]:
  tensors = published.read_tensors(file, {"hash.weight": (bits, width), "hash.bias": (bits,)})
  return {"kernel": tensors["hash.weight"].T, "bias": tensors["hash.bias"]}
