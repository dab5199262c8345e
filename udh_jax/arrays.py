"""What public functions take for an array: JAX's or NumPy's."""

from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray


def jax_or_numpy(values: Any) -> Array:
  """An array of JAX as it is, and anything else as NumPy has it."""
  return values if isinstance(values, jax.Array) else np.asarray(values)
