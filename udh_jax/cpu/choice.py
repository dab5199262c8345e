"""Which kernels serve a call: numba's on a CPU, JAX's under a trace and on accelerators."""

import contextlib
import functools
import importlib.util
import logging
import os
from collections.abc import Iterator
from typing import Any

import jax

from udh_jax.errors import InputError, is_traced, require

VARIABLE = "UDH_JAX_CPU_KERNELS"  # environment variable: "numba", "jax" or "auto"
KERNELS = ("auto", "numba", "jax")

_forced: list[str] = []  # what `kernels` asks for, the innermost last


@contextlib.contextmanager
def kernels(name: str) -> Iterator[None]:
  """Has every call inside served by the kernels named, for tests and benchmarks.

  The same can be had for a whole program by the environment variable ``UDH_JAX_CPU_KERNELS``.

  Args:
    name: "jax", "numba", or "auto": numba's where it is installed and can be imported.

  Raises:
    InputError: If the name is unknown, or numba is asked for and cannot be imported.
  """
  _check(name, "kernels")
  _forced.append(name)
  try:
    yield
  finally:
    _forced.pop()


def use_numba(*arrays: Any) -> bool:
  """Whether numba's kernels serve a call with these arrays. The one place where that is decided.

  They do where numba is installed, can be imported, which is tried at the first need, and all
  arrays lie in this process's memory: NumPy arrays where JAX's default device is a CPU, and JAX
  arrays on one CPU, outside a trace. Results are the same.

  However few the pairs: the kernels are compiled once on a machine and read from disk by later
  processes, whereas JAX compiles for each new shape. Only the first call ever has to wait for it.

  Args:
    *arrays: The arguments of the call that decide it; None counts nothing.

  Returns:
    The choice.

  Raises:
    InputError: If the environment variable names no kernels, or numba is asked for and cannot be
      imported.
  """
  if is_traced(*arrays):
    return False
  name = _forced[-1] if _forced else os.environ.get(VARIABLE, "auto")
  _check(name, VARIABLE)
  if name == "jax" or not _installed():
    return False
  given = [array for array in arrays if array is not None]
  if not all(_in_memory(array) for array in given if isinstance(array, jax.Array)):
    return False
  if not any(isinstance(array, jax.Array) for array in given) and jax.default_backend() != "cpu":
    return False
  if problem := _problem():
    _warn(problem)
  return not problem


def _check(name: str, source: str) -> None:
  require(name in KERNELS, f"{source} is {name!r}; choose one of {', '.join(KERNELS)}.")
  if name == "numba" and not _installed():
    raise InputError(
      f"{source} is 'numba', which is not installed; run pip install \"udh_jax[cpu]\"."
    )
  if name == "numba" and (problem := _problem()):
    raise InputError(
      f"{source} is 'numba', which is installed and cannot be imported ({problem}); mend that, or "
      "choose jax."
    )


@functools.cache
def _installed() -> bool:
  try:
    return importlib.util.find_spec("numba") is not None
  except ValueError:  # it was made unavailable to this process
    return False


@functools.cache
def _problem() -> str:
  """Why numba cannot be imported, though it is installed; "" where it can."""
  try:
    importlib.import_module("numba")
  except (ImportError, OSError) as error:  # a library that cannot be loaded
    return " ".join(str(error).split()) or type(error).__name__
  return ""


@functools.cache
def _warn(problem: str) -> None:
  logging.getLogger(__name__).warning(
    "numba is installed and cannot be imported (%s): JAX serves in its place, which is slower.",
    problem,
  )


def _in_memory(array: jax.Array) -> bool:
  return {device.platform for device in array.devices()} == {"cpu"} and len(array.devices()) == 1
