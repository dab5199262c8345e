"""How encoders run: weights sent once, batches of few sizes, as every other is compiled anew."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from udh_jax.arrays import Array


class Runs:
  """What encoders of images and of pairs have in common, by ``variables`` and ``about["bits"]``."""

  variables: Mapping[str, Any]
  about: dict[str, Any]

  def __reduce__(self):
    """For pickle: what is compiled stays behind."""
    return type(self), (jax.tree.map(np.asarray, dict(self.variables)), self.about)

  @functools.cached_property
  def _placed(self) -> Mapping[str, Any]:
    """The variables where they are read, sent there once."""
    return jax.device_put(dict(self.variables))

  def _codes(self, function: Callable, rows: Array) -> np.ndarray:
    if not len(rows):
      return np.zeros((0, -(-self.about["bits"] // 8)), np.uint8)
    return np.asarray(function(self._placed, filled_up(rows)))[: len(rows)]

  def _real(self, function: Callable, rows: Array) -> np.ndarray:
    if not len(rows):
      return np.zeros((0, self.about["bits"]), np.float32)
    return np.asarray(function(self._placed, filled_up(rows)))[: len(rows)]


def filled_up(rows: Array) -> Array:
  """Rows with copies of the first behind them, so that there are 1, 2, 4 or a multiple of 8.

  Args:
    rows: Array of shape ``[n, ...]`` with n of 1 or more; one of JAX stays as it is.

  Returns:
    Array of shape ``[m, ...]`` with m of n or more.
  """
  if isinstance(rows, jax.Array):
    return rows
  count = len(rows)
  wanted = 1 << (count - 1).bit_length() if count <= 8 else -(-count // 8) * 8
  return rows if wanted == count else np.concatenate([rows, np.repeat(rows[:1], wanted - count, 0)])
