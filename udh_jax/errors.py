"""Checks at the public boundary: one clear line, before any work is done."""

import math
import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


class InputError(ValueError):
  """Input that the caller can put right.

  The message is one line: what was given, what is expected, what to do. The command line prints it
  without a traceback.
  """


class TrainingError(RuntimeError):
  """A run that cannot go on as it is configured; the message is one line."""


def is_traced(*arrays: Any) -> bool:
  """Whether any value is known only to a running trace, so that values cannot be checked."""
  return any(isinstance(array, jax.core.Tracer) for array in arrays)


def require(condition: object, message: str | Callable[[], str]) -> None:
  """Raises `InputError` with `message` unless `condition` holds.

  Args:
    condition: What has to be true, as `if` reads it.
    message: The line to show, or a function that makes it where making it costs something.

  Raises:
    InputError: If the condition is false.
  """
  if not condition:
    raise InputError(message() if callable(message) else message)


def whole_number(name: str, value: Any) -> int:
  """A Python integer of whatever holds a whole number.

  Args:
    name: What the value is called in the message.
    value: An integer of Python or NumPy, or a float without a fraction.

  Returns:
    The integer.

  Raises:
    InputError: If it is something else; booleans are.
  """
  if not isinstance(value, bool | np.bool_):
    try:
      return operator.index(value)
    except TypeError:
      pass
    if isinstance(value, float | np.floating) and float(value).is_integer():
      return int(value)
  raise InputError(f"{name} is {value!r}, expected a whole number.")


def require_number(name: str, value: Any, least: float, most: float = math.inf) -> None:
  """Refuses what is no finite number within limits; a value that is traced is not known.

  Args:
    name: What the value is called in the message.
    value: A number of Python, NumPy or JAX.
    least: The smallest that is allowed.
    most: The largest; infinity stands for any.

  Raises:
    InputError: If it is something else.
  """
  if is_traced(value):
    return
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  limits = f"{least:g} or more" if math.isinf(most) else f"{least:g} to {most:g}"
  require(
    math.isfinite(number) and least <= number <= most,
    lambda: f"{name} is {value!r}, expected a finite number of {limits}.",
  )


def require_positive(name: str, value: Any) -> None:
  """Refuses a number that is not above 0; a value that is traced is not known.

  Raises:
    InputError: If it is not.
  """
  require(is_traced(value) or value > 0, lambda: f"{name} is {value}, expected > 0.")


def require_finite(name: str, array: Any) -> None:
  """Refuses NaN and infinity, and says how many rows hold them.

  Does nothing under a trace (values are unknown there) and for arrays that span processes.

  Args:
    name: What the array is called in the message.
    array: Array of shape ``[n, ...]``; an empty one is finite.

  Raises:
    InputError: If a value is NaN or infinite.
  """
  if np.size(array) == 0:
    return
  if is_traced(array) or (isinstance(array, jax.Array) and not array.is_fully_addressable):
    return
  if isinstance(array, jax.Array):
    with jax.ensure_compile_time_eval():  # a function that is traced may close over it
      bad = ~np.asarray(_finite_rows(array))
  else:
    array = np.asarray(array)
    bad = ~np.isfinite(array).reshape(array.shape[0], -1).all(axis=1)
  if bad.any():
    raise InputError(
      f"{name}: {int(bad.sum())} of {len(bad)} rows hold NaN or infinity "
      f"(the first is row {int(bad.argmax())}); repair or remove them."
    )


@jax.jit
def _finite_rows(array: jax.Array) -> jax.Array:
  return jax.numpy.isfinite(array).reshape(array.shape[0], -1).all(axis=1)


def require_outside(name: str, *arrays: Any) -> None:
  """Refuses arrays of a trace where a function computes on the host.

  Args:
    name: Who asks, for the message.
    *arrays: Its arguments.

  Raises:
    InputError: If one is traced.
  """
  require(
    not is_traced(*arrays),
    f"{name} computes on the host and got an array of a trace; call it outside of jit and vmap.",
  )


def require_automatic(name: str, *arrays: Any) -> None:
  """Refuses arrays split over mesh axes of the explicit type, as `jax.make_mesh` makes them.

  Args:
    name: Who asks, for the message.
    *arrays: Arrays of JAX or others.

  Raises:
    InputError: If one is split so.
  """
  for array in arrays:
    if isinstance(array, jax.Array):
      sharding = jax.typeof(array).sharding
      explicit = jax.sharding.AxisType.Explicit in sharding.mesh.axis_types
      require(
        not explicit or not any(sharding.spec),
        f"{name}: an array is split over a mesh with axes of the type Explicit; make the mesh by "
        "jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(shape)).",
      )


def require_key(name: str, key: Any) -> None:
  """Refuses what is not one random key, such as the number of a seed.

  Args:
    name: Who asks, for the message.
    key: From `jax.random.key`, or of the older form that `jax.random.PRNGKey` makes.

  Raises:
    InputError: If it is something else.
  """
  dtype, shape = getattr(key, "dtype", None), np.shape(key)
  typed = dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)
  given = f"{dtype} of shape {shape}" if shape else repr(key)
  require(
    shape == () if typed else dtype == np.uint32 and len(shape) == 1,
    f"{name}: key is {given}, expected one random key; give jax.random.key(0), say.",
  )


def require_labels(name: str, labels: jax.Array, num_classes: int, *, what: str = "labels") -> None:
  """Refuses labels outside -1..K-1, where their values are known.

  Args:
    name: Who asks, for the message.
    labels: Integers. Array of any shape.
    num_classes: K.
    what: What they are, for the message.

  Raises:
    InputError: If one is outside.
  """
  if not labels.size or is_traced(labels) or not labels.is_fully_addressable:
    return
  with jax.ensure_compile_time_eval():  # a function that is traced may close over them
    lowest, highest = int(labels.min()), int(labels.max())
  require(
    lowest >= -1 and highest < num_classes,
    f"{name}: {what} run from {lowest} to {highest}, expected 0 to {num_classes - 1}, or -1 for "
    "none; renumber them from 0 on.",
  )
