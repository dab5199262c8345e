"""Folders of encoders that can be published: parts in safetensors, and ``config.json``."""

import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from udh_jax.errors import InputError, require
from udh_jax.files import write_json
from udh_jax.models.convolution import PADDINGS
from udh_jax.models.registry import BACKBONES
from udh_jax.records import LIST, TEXT, numbers, one_of, whole

CONFIG = "config.json"

_MOST = 1 << 20  # bits of a code, or pixels along the side of an image: to tell sense from damage

# Fields of ``config.json`` that every encoder has, besides ``format`` and ``version``.
FIELDS = {
  "digest": TEXT,
  "backbone": one_of("", *BACKBONES),
  "dtype": one_of("float32", "bfloat16"),
  "bits": whole(1, _MOST),
  "image_size": whole(0, _MOST),
  "picture_size": whole(0, _MOST),
  "padding": TEXT,
  "mean": LIST,
  "std": LIST,
}
# What they hold where there is a backbone, that is for pictures.
BACKBONE_FIELDS = {
  "backbone": one_of(*BACKBONES),
  "image_size": whole(1, _MOST),
  "picture_size": whole(1, _MOST),
  "padding": one_of(*PADDINGS),
  "mean": numbers(3),
  "std": numbers(3, positive=True),
}


def write_folder(
  folder: str | os.PathLike,
  write_parts: Callable[[pathlib.Path], None],
  config: Mapping[str, Any],
) -> None:
  """Writes an encoder: its parts first, so that a folder without ``config.json`` is none.

  All of it is written beside the old one before that is touched, so that a full disk costs nothing.

  Args:
    folder: Made if missing; what is there is replaced.
    write_parts: Called with a folder to write them to.
    config: What ``config.json`` holds.

  Raises:
    InputError: If the folder cannot be written to.
  """
  folder = pathlib.Path(folder)
  new = folder / ".new.tmp"
  try:
    new.mkdir(parents=True, exist_ok=True)
    try:
      write_parts(new)
      write_json(new / CONFIG, config)
      (folder / CONFIG).unlink(missing_ok=True)
      for part in sorted(new.iterdir(), key=lambda part: part.name == CONFIG):  # it comes last
        os.replace(part, folder / part.name)
    finally:
      shutil.rmtree(new, ignore_errors=True)
  except OSError as error:
    raise InputError(
      f"The encoder cannot be written to {folder} ({error.strerror}); give another folder."
    ) from error


def read_tensors(
  file: pathlib.Path, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
  """Reads a part of an encoder that `safetensors` wrote.

  Args:
    file: The part.
    shapes: Of its float32 tensors, by name; others must not be there.

  Raises:
    InputError: If the file cannot be read, or its tensors are others; names file and tensor.
  """
  from safetensors import SafetensorError
  from safetensors.numpy import load

  remedy = "fetch it again"
  try:
    tensors = load(file.read_bytes())
  except OSError as error:
    raise InputError(f"{file} cannot be read ({error.strerror}); {remedy}.") from error
  except (SafetensorError, KeyError, TypeError, ValueError) as error:  # types NumPy lacks as well
    raise InputError(f"{file} is damaged ({error}); {remedy}.") from error
  for name, shape in shapes.items():
    require(name in tensors, f"{file} is damaged: it has no tensor {name}; {remedy}.")
    found = tensors[name]
    require(
      found.shape == shape and found.dtype == np.float32,
      f"{file} is damaged: its tensor {name} is {found.dtype} of shape {found.shape}, expected "
      f"float32 of shape {shape}; {remedy}.",
    )
  extra = sorted(tensors.keys() - shapes.keys())
  require(not extra, lambda: f"{file} is damaged: it has a tensor {extra[0]} too many; {remedy}.")
  return tensors
