"""Finds and reads encoders that runs have left, or that were published."""

import os
import pathlib

from udh_jax.encoders import image, pair
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.encoders.published import CONFIG
from udh_jax.errors import InputError, require
from udh_jax.files import read_json
from udh_jax.models.weights import HUB, download
from udh_jax.records import TEXT, one_of, require_fields
from udh_jax.retrieval.index import Searchable


def load_encoder(source: str | os.PathLike, bits: int | None = None) -> Encoder | PairEncoder:
  """Reads an encoder that `Encoder.save` or `PairEncoder.save` wrote.

  Args:
    source: Its folder, such as ``encoder_32bits`` in a work directory; the work directory of a
      finished run; or ``hf-hub:owner/name``.
    bits: Length of its codes; may be left out where ``source`` has one encoder.

  Returns:
    The encoder.

  Raises:
    InputError: If it is not there, not whole, of another version, or makes codes of another length.
  """
  source = find_encoder(source, bits)
  config = _part(source, CONFIG)
  formats = {image.FORMAT: image, pair.FORMAT: pair}
  about = require_fields(config, read_json(config), {"format": one_of(*formats)})
  kind = formats[about.pop("format")]
  version = about.pop("version", None)
  require(
    version == kind.VERSION and isinstance(version, int),
    f"{config} is of version {version!r}, this program reads version {kind.VERSION}; use the "
    "version of udh_jax that wrote it, or make it again.",
  )
  require_fields(config, about, kind.FIELDS)
  require(
    bits in (None, about["bits"]),
    f"{source} makes codes of {about['bits']} bits, not of {bits}; leave --bits out, or give "
    "another encoder.",
  )
  if kind is pair:
    return pair.read_pair_encoder(_part(source, pair.NETWORKS), about)
  return image.read_image_encoder(
    _part(source, image.BACKBONE), _part(source, image.HASH_LAYER), about
  )


def _part(source: str | os.PathLike, name: str) -> pathlib.Path:
  """A file of a published encoder, fetched where it is on the hub."""
  if on_hub(source):
    return pathlib.Path(download(str(source), name))
  file = pathlib.Path(source) / name
  require(
    file.is_file(),
    f"{source} is not an encoder: it has no {name}; give a folder that train.py wrote, such as "
    "encoder_32bits in the work directory.",
  )
  return file


def on_hub(source: str | os.PathLike) -> bool:
  """Whether an encoder's place is a repository on the Hugging Face hub, and not a folder."""
  return str(source).startswith(HUB)


def absolute(source: str | os.PathLike) -> str:
  """An encoder's place as it can be stored: a folder's path from the root on, "" as it is."""
  text = os.fspath(source)
  return text if not text or on_hub(text) else str(pathlib.Path(text).resolve())


def find_encoder(source: str | os.PathLike, bits: int | None = None) -> str:
  """Where an encoder is: its own place, or that of the one that a run left.

  Args:
    source: An encoder's folder, a finished run's work directory or ``hf-hub:owner/name``.
    bits: Length of its codes; may be left out where a run has one length.

  Returns:
    The absolute path of the encoder's folder, or ``source`` if it is on the hub.

  Raises:
    InputError: If it is not a folder, a run has none, or there is a choice to make.
  """
  if on_hub(source):
    return str(source)
  folder = pathlib.Path(source).expanduser().resolve()
  require(
    folder.is_dir(),
    f"{folder} is not a folder; give that of an encoder, the work directory of a finished run, or "
    "hf-hub:owner/name.",
  )
  found = sorted(path.parent for path in folder.glob(f"encoder_*bits/{CONFIG}"))
  is_run = found or (folder / "stages").is_dir()
  if not is_run and (folder / CONFIG).is_file():
    return str(folder)
  if not found:
    seeds = sorted(path.parent.parent for path in folder.glob(f"seed_*/encoder_*bits/{CONFIG}"))
    raise InputError(
      f"{folder} holds no encoder; name an encoder's folder, or the work directory of a finished "
      f"run{f', such as {seeds[0]}' if seeds else ''}."
    )
  names = ", ".join(path.name for path in found)
  if bits is not None:
    chosen = folder / f"encoder_{bits}bits"
    require(chosen in found, f"{folder} holds no encoder of {bits} bits, but {names}.")
    return str(chosen)
  require(
    len(found) == 1,
    f"{folder} holds {names}; name one of these folders, or choose by its bits (--bits).",
  )
  return str(found[0])


def encoder_of(index: Searchable, source: str | None = None) -> Encoder | PairEncoder:
  """The encoder that made an index.

  Args:
    index: From ``udh-jax encode``, or a store.
    source: Where the encoder is now; by default where it was then.

  Raises:
    InputError: If it is not there, or is another.
  """
  found = index.about.get("encoder")
  require(found is not None, "The index does not say which encoder made it; search it by code.")
  made = require_fields("The index's note on its encoder", found, {"source": TEXT, "digest": TEXT})
  where = source or made["source"]
  require(where, "The index does not say where its encoder is; give it with --encoder.")
  try:
    encoder = load_encoder(find_encoder(where, index.num_bits))  # a run may have several
  except InputError as error:
    if source:
      raise
    raise InputError(
      f"The index was made with the encoder {where}, which cannot be loaded: {error} If it was "
      "moved, say with --encoder where it is now."
    ) from error
  require(
    encoder.digest == made["digest"],
    f"The encoder {where} is not the one that made the index, so their codes do not agree; give "
    "the right one with --encoder, or encode the pictures again.",
  )
  return encoder
