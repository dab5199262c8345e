"""Compact binary codes for images: learn them, mostly without labels, and retrieve with them.

The functions here are pure and need no TensorFlow. Whole runs are in `udh_jax.methods.run`.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from udh_jax.api import *  # noqa: F403

__version__ = "0.1.0"


if not TYPE_CHECKING:  # or a type checker would believe every name to be there
  # Imported at the first use, so that a program's first lines run at once and can say what happens:
  # JAX alone takes most of a second.
  def __getattr__(name: str) -> Any:
    # Modules first: `from udh_jax import errors` in one of them must not import all the others.
    if not name.startswith("__") and importlib.util.find_spec(f"udh_jax.{name}") is not None:
      return importlib.import_module(f"udh_jax.{name}")
    api = importlib.import_module("udh_jax.api")
    if name == "__all__" or name in api.__all__:
      return getattr(api, name)
    raise AttributeError(f"module 'udh_jax' has no attribute {name!r}")

  def __dir__() -> list[str]:
    return [*globals(), *importlib.import_module("udh_jax.api").__all__]
