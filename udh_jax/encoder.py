"""A trained hash network on its own: pictures in, packed codes out."""

import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from udh_jax import pair_encoder
from udh_jax.coding.binary import pack_codes, sign
from udh_jax.data.augmentation import normalise, resize
from udh_jax.errors import InputError, require
from udh_jax.files import read_json, write_atomically
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import HUB, download, load_weights, save_weights
from udh_jax.published import CONFIG, write_folder

FORMAT, VERSION = "udh_jax encoder", 1
BACKBONE, HASH_LAYER = "model.safetensors", "hash_layer.safetensors"


def codes_of(
  variables: Mapping[str, Any], images: jax.Array, about: Mapping[str, Any]
) -> jax.Array:
  """Codes of images; pure.

  Args:
    variables: ``backbone``, the variables of the backbone, and ``hash``, ``kernel`` ``[d, bits]``
      and ``bias`` ``[bits]``.
    images: uint8 array of shape ``[b, h, w, 3]``.
    about: ``backbone``, ``padding``, ``dtype``, ``image_size``, ``mean``, ``std`` and ``bits``.

  Returns:
    Packed codes of sign(tanh(H f)), uint8 ``[b, ceil(bits / 8)]``.
  """
  backbone = create_backbone(
    about["backbone"], dtype=jnp.dtype(about["dtype"]), padding=about["padding"]
  )
  view = normalise(resize(images, size=about["image_size"]), about["mean"], about["std"])
  features = backbone.apply(variables["backbone"], view)
  hash_layer = nn.Dense(about["bits"], dtype=jnp.float32)
  return pack_codes(sign(jnp.tanh(hash_layer.apply({"params": variables["hash"]}, features))))


class Encoder:
  """A trained hash network.

  Attributes:
    about: What `codes_of` reads, and ``picture_size`` (the side of the square that picture files
      are decoded to, as in training), ``labels_used`` (behind the network's first weights),
      ``method`` and ``scores``.
    variables: See `codes_of`.
  """

  def __init__(self, variables: Mapping[str, Any], about: Mapping[str, Any]):
    self.variables = variables
    self.about = dict(about)
    self._encode = jax.jit(lambda variables, images: codes_of(variables, images, self.about))

  def __call__(self, images: np.ndarray) -> np.ndarray:
    """Codes of images.

    Args:
      images: uint8 array of shape ``[b, h, w, 3]``, as `decode_picture` makes them.

    Returns:
      Packed codes, uint8 array of shape ``[b, ceil(bits / 8)]``.

    Raises:
      InputError: If the dtype or shape is another.
    """
    images = jnp.asarray(images)
    require(
      images.ndim == 4 and images.shape[3] == 3 and images.dtype == jnp.uint8,
      f"Encoder: images are {images.dtype} of shape {images.shape}, expected uint8 [b, h, w, 3].",
    )
    if not len(images):
      return np.zeros((0, -(-self.about["bits"] // 8)), np.uint8)
    return np.asarray(self._encode(self.variables, images))

  @functools.cached_property
  def digest(self) -> str:
    """SHA-256 of all that decides the codes."""
    made_of = {key: self.about[key] for key in (*_READ_BY_CODES_OF, "picture_size")}
    digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode())
    for leaf in jax.tree.leaves(dict(self.variables)):  # in the order of their names
      digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()

  def save(self, folder: str | os.PathLike) -> None:
    """Writes a folder that can be published and that `load_encoder` reads.

    ``model.safetensors`` holds the backbone in timm's naming, ``hash_layer.safetensors`` the hash
    layer, ``config.json`` the rest; it is written last, so that a folder without it is no encoder.

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
    """Writes one file that encodes images where only JAX and numpy are installed.

    There, ``jax.export.deserialize(bytearray(open(path, "rb").read())).call(images)`` gives the
    packed codes of uint8 images ``[b, picture_size, picture_size, 3]``, for any b, on a CPU, a GPU
    or a TPU.

    Raises:
      InputError: If the file cannot be written.
    """
    from jax import export

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


_READ_BY_CODES_OF = ("backbone", "padding", "dtype", "image_size", "mean", "std", "bits")


def load_encoder(source: str | os.PathLike) -> Encoder | pair_encoder.PairEncoder:
  """Reads an encoder that `Encoder.save` or `udh_jax.pair_encoder.PairEncoder.save` wrote.

  Args:
    source: Its folder, such as ``encoder_32bits`` in a work directory, or ``hf-hub:owner/name``.

  Returns:
    The encoder.

  Raises:
    InputError: If it is not there, not whole, or of another version.
  """
  about = read_json(_part(source, CONFIG))
  known = {FORMAT: VERSION, pair_encoder.FORMAT: pair_encoder.VERSION}
  found = about.pop("format", None), about.pop("version", None)
  require(
    found in known.items(),
    f"{source} has format {found[0]!r}, version {found[1]}; expected one of "
    f"{', '.join(f'{name!r}, version {version}' for name, version in known.items())}.",
  )
  if found[0] == pair_encoder.FORMAT:
    return pair_encoder.read_pair_encoder(_part(source, pair_encoder.NETWORKS), about)
  digest = about.pop("digest")
  backbone = load_weights(about["backbone"], _part(source, BACKBONE)).variables
  hash_layer = _hash_layer(_part(source, HASH_LAYER))
  encoder = Encoder({"backbone": backbone, "hash": hash_layer}, about)
  require(
    encoder.digest == digest,
    f"{source} is damaged: its tensors do not match the checksum in {CONFIG}; fetch it again.",
  )
  return encoder


def _part(source: str | os.PathLike, name: str) -> pathlib.Path:
  """A file of a published encoder, fetched where it is on the hub."""
  if str(source).startswith(HUB):
    return pathlib.Path(download(str(source), name))
  file = pathlib.Path(source) / name
  require(
    file.is_file(),
    f"{source} is no encoder: it has no {name}; give a folder that train.py wrote, such as "
    "encoder_32bits in the work directory.",
  )
  return file


def _hash_layer(file: pathlib.Path) -> dict[str, np.ndarray]:
  from safetensors import SafetensorError
  from safetensors.numpy import load

  try:
    tensors = load(file.read_bytes())
    return {"kernel": tensors["hash.weight"].T, "bias": tensors["hash.bias"]}
  except (SafetensorError, KeyError) as error:
    raise InputError(f"{file} is damaged or no hash layer ({error}); fetch it again.") from error
