"""Files that are whole or absent."""

import json
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import IO, Any


def write_atomically(path: str | os.PathLike, write: Callable[[IO[bytes]], object]) -> None:
  """Lets ``write`` fill a temporary file beside ``path`` and then puts it in its place."""
  path = pathlib.Path(path)
  handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
  try:
    with os.fdopen(handle, "wb") as file:
      write(file)
      file.flush()
      os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    pathlib.Path(temporary).unlink(missing_ok=True)
    raise


def write_text(path: str | os.PathLike, text: str) -> None:
  """Writes UTF-8 text, whole or not at all."""
  write_atomically(path, lambda file: file.write(text.encode("utf-8", "surrogateescape")))


def write_json(path: str | os.PathLike, value: Any) -> None:
  """Writes ``value`` as indented JSON, whole or not at all."""
  write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
  """Reads what `write_json` wrote."""
  return json.loads(pathlib.Path(path).read_text())
