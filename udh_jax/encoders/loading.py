"""Finds and reads encoders that runs have left, or that were published."""

import os
import pathlib

from udh_jax.encoders import image, pair
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.encoders.published import CONFIG
from udh_jax.errors import require
from udh_jax.files import read_json
from udh_jax.models.weights import HUB, download
from udh_jax.retrieval.index import HammingIndex


def load_encoder(source: str | os.PathLike) -> Encoder | PairEncoder:
  """Reads an encoder that `Encoder.save` or `PairEncoder.save` wrote.

  Args:
    source: Its folder, such as ``encoder_32bits`` in a work directory, or ``hf-hub:owner/name``.

  Returns:
    The encoder.

  Raises:
    InputError: If it is not there, not whole, or of another version.
  """
  about = read_json(_part(source, CONFIG))
  known = {image.FORMAT: image.VERSION, pair.FORMAT: pair.VERSION}
  found = about.pop("format", None), about.pop("version", None)
  require(
    found in known.items(),
    f"{source} has format {found[0]!r}, version {found[1]}; expected one of "
    f"{', '.join(f'{name!r}, version {version}' for name, version in known.items())}.",
  )
  if found[0] == pair.FORMAT:
    return pair.read_pair_encoder(_part(source, pair.NETWORKS), about)
  return image.read_image_encoder(
    _part(source, image.BACKBONE), _part(source, image.HASH_LAYER), about
  )


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


def find_encoder(workdir: str | os.PathLike, bits: int | None = None) -> pathlib.Path:
  """The encoder that a run left.

  Args:
    workdir: Of a finished run, or the encoder's own folder.
    bits: Length of its codes; may be left out where there is one length.

  Raises:
    InputError: If there is none, or a choice to make.
  """
  workdir = pathlib.Path(workdir)
  if (workdir / CONFIG).is_file() and not (workdir / "stages").is_dir():
    return workdir
  found = sorted(path.parent for path in workdir.glob(f"encoder_*bits/{CONFIG}"))
  require(
    found, f"{workdir} holds no encoder; give the --workdir of a run that train.py has finished."
  )
  names = ", ".join(path.name for path in found)
  if bits is not None:
    chosen = workdir / f"encoder_{bits}bits"
    require(chosen in found, f"{workdir} holds no encoder of {bits} bits, but {names}.")
    return chosen
  require(len(found) == 1, f"{workdir} holds {names}; choose one with --bits.")
  return found[0]


def encoder_of(index: HammingIndex, source: str | None = None) -> Encoder | PairEncoder:
  """The encoder that made an index.

  Args:
    index: From `udh_jax.encode`.
    source: Where the encoder is now; by default where it was then.

  Raises:
    InputError: If it is not there, or is another.
  """
  made = index.about.get("encoder")
  require(made is not None, "The index does not say which encoder made it; search it by code.")
  source = source or made["source"]
  require(source, "The index does not say where its encoder is; give it with --encoder.")
  encoder = load_encoder(source)
  require(
    encoder.digest == made["digest"],
    f"The encoder {source} is not the one that made the index, so their codes do not agree; give "
    "the right one with --encoder, or encode the pictures again.",
  )
  return encoder
