"""How kernels are compiled, kept on disk, and run by several threads."""

import concurrent.futures
import contextlib
import functools
import hashlib
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

from udh_jax.machine import num_cores


def compiled(*, fused: bool = False) -> Callable:
  """Compiles a function on its first call, for threads that run at once.

  Machine code is kept beside the source, or in the user's cache folder where that cannot be
  written, and is read from there by later processes, until a source in the function's folder
  changes: it may hold the code of others there. Where neither can be written, it is compiled anew
  in each process.

  Args:
    fused: Whether a product and a sum may be one instruction that rounds once.

  Returns:
    The decorator.
  """
  options: dict[str, Any] = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"contract"} if fused else False,
  }

  def decorate(function: Callable) -> Callable:
    kernel = numba.njit(**options)(function)
    with contextlib.suppress(RuntimeError):  # numba found no folder for its cache
      kernel._cache = _KeptWithSources(function)
    return kernel

  return decorate


class _KeptWithSources(FunctionCache):
  """numba's cache of a function, which alone sees changes of the function's own file only."""

  def _index_key(self, sig, codegen):
    folder = pathlib.Path(self._py_func.__code__.co_filename).parent
    return (*super()._index_key(sig, codegen), _digest(folder))


@functools.cache
def _digest(folder: pathlib.Path) -> str:
  """Of the sources in a folder, with their names."""
  digest = hashlib.sha256()
  for path in sorted(folder.glob("*.py")):
    source = path.read_bytes()
    digest.update(f"{path.name} {len(source)} ".encode() + source)
  return digest.hexdigest()


def run_in_threads(function: Callable[..., Any], tasks: Sequence[tuple]) -> None:
  """Calls ``function(*task)`` for each task, as many at once as there are cores."""
  if len(tasks) <= 1 or num_cores() == 1:
    for task in tasks:
      function(*task)
    return
  with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
    for future in [pool.submit(function, *task) for task in tasks]:
      future.result()


def split(size: int, most: int) -> list[tuple[int, int]]:
  """Cuts ``0..size`` into ranges of at most ``most``, alike in length and enough for all cores."""
  count = max(-(-size // most), min(num_cores(), size))
  return list(itertools.pairwise(size * i // count for i in range(count + 1))) if size else []


def fixed(array: np.ndarray) -> np.ndarray:
  """The array as a contiguous one that cannot be written, whatever it was.

  numba compiles a kernel for each kind of array; so that inputs are of one kind only.
  """
  array = np.ascontiguousarray(array).view()
  array.flags.writeable = False
  return array


@intrinsic
def popcount(typing_context, x):
  """Number of bits set in an unsigned integer; vectorised where the loop around it is."""

  def generate(context, builder, signature, arguments):
    return builder.ctpop(arguments[0])

  return x(x), generate


@intrinsic
def trailing_zeros(typing_context, x):
  """Number of zero bits below the lowest one that is set, of an integer that is not 0."""

  def generate(context, builder, signature, arguments):
    return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

  return x(x), generate


@intrinsic
def load_word(typing_context, array, offset):
  """Eight bytes of a flat array of bytes, from any offset, as one uint64."""

  def generate(context, builder, signature, arguments):
    data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
    place = builder.gep(data, [arguments[1]])
    word = builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()))
    word.align = 1
    return word

  return types.uint64(array, types.intp), generate
