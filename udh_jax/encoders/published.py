"""Folders of encoders that can be published: parts in safetensors, and ``config.json``."""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from udh_jax.errors import InputError
from udh_jax.files import write_json

CONFIG = "config.json"


def write_folder(
  folder: str | os.PathLike,
  write_parts: Callable[[pathlib.Path], None],
  config: Mapping[str, Any],
) -> None:
  """Writes an encoder: its parts first, so that a folder without ``config.json`` is none.

  Args:
    folder: Made if missing; what is there is replaced.
    write_parts: Called with the folder.
    config: What ``config.json`` holds.

  Raises:
    InputError: If the folder cannot be written to.
  """
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    write_parts(folder)
    write_json(folder / CONFIG, config)
  except OSError as error:
    raise InputError(
      f"The encoder cannot be written to {folder} ({error.strerror}); give another folder."
    ) from error
