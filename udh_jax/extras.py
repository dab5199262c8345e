"""Optional dependencies: imported where they are used, missed in one line that names the remedy."""

import importlib
import importlib.util
import types

from udh_jax.errors import InputError


def require_extra(module: str, *, extra: str) -> types.ModuleType:
  """Imports a module that an extra of the package installs.

  Args:
    module: Dotted name, such as "psycopg" or "ray.data".
    extra: Which extra of `pyproject.toml` brings it, such as "postgresql".

  Returns:
    The module.

  Raises:
    InputError: If it, or something that it needs, is not installed or cannot be loaded.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    missing = (
      isinstance(error, ModuleNotFoundError)
      and error.name
      and (f"{module}.".startswith(f"{error.name}."))
    )
    what = "is not installed" if missing else f"cannot be imported ({error})"
    raise _error(module, what, extra) from error


def require_installed(module: str, *, extra: str) -> None:
  """Refuses at the start of long work what would be missed at its end; imports nothing.

  Args:
    module: Top-level name, such as "matplotlib".
    extra: Which extra of `pyproject.toml` brings it.

  Raises:
    InputError: If it is not installed.
  """
  if importlib.util.find_spec(module) is None:
    raise _error(module, "is not installed", extra)


def _error(module: str, what: str, extra: str) -> InputError:
  return InputError(f'{module} {what}; run pip install "udh_jax[{extra}]".')
