"""Discrete cyclic coordinate descent: one function for every discrete update."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from udh_jax.arrays import Array
from udh_jax.coding.binary import require_unit
from udh_jax.cpu import choice
from udh_jax.errors import is_traced, require, require_finite, whole_number
from udh_jax.numerics import matmul

_GROUP = 8  # bits whose linear terms come from one matrix product
_PAIR = 2  # bits of a group that one fused loop over the rows decides
_SYMMETRIC = 1e-3  # share of its largest value that a matrix may be off and still be symmetric
_CPU_TYPES = ("float32", "int8", "int32")  # of codes that the kernel for CPUs takes


def dcc(codes: Array, linear: Array, gram: Array, *, num_sweeps: int) -> jax.Array:
  """Minimises a binary quadratic form by discrete cyclic coordinate descent.

  Solves min over V in {-1, +1}^{n x c} of tr(V A V^T) - 2 tr(V Q^T), one bit (column) at a time,
  all rows at once: V_k <- sign(Q_k - V A_k + A_kk V_k), k = 1..c, with sign(0) = +1. No step raises
  the objective. Rows do not interact, so a row-sharded call needs no communication and takes no
  axis name. Works in the dtype of ``linear``, at least float32. On a CPU outside a trace
  `udh_jax.cpu.sweeps` does it, in float32.

  Args:
    codes: Start point V, values in {-1, +1}. Array of shape ``[n, c]``.
    linear: Q. Array of shape ``[n, c]``.
    gram: A, symmetric. Array of shape ``[c, c]``.
    num_sweeps: How many times to cycle through the c bits, at least 0.

  Returns:
    Codes of shape ``[n, c]``, same dtype as ``codes``.

  Raises:
    InputError: If the shapes disagree, ``num_sweeps`` is negative, or (where values are known) a
      value is not finite, ``codes`` are not in {-1, +1} or ``gram`` is not symmetric.

  References:
    Shen et al., Supervised Discrete Hashing, CVPR 2015, section 3.
  """
  if choice.use_numba(codes, linear, gram):
    # As NumPy arrays of the types that JAX would give them.
    codes, linear, gram = map(np.asarray, (codes, linear, gram))
    codes, linear, gram = (
      array.astype(jax.dtypes.canonicalize_dtype(array.dtype), copy=False)
      for array in (codes, linear, gram)
    )
  else:
    codes, linear, gram = jnp.asarray(codes), jnp.asarray(linear), jnp.asarray(gram)
  num_sweeps = whole_number("dcc: num_sweeps", num_sweeps)
  require(
    codes.ndim == 2 and codes.shape == linear.shape,
    f"dcc: codes have shape {codes.shape} and linear {linear.shape}, expected both [n, c].",
  )
  require(
    gram.shape == (codes.shape[1],) * 2,
    f"dcc: gram has shape {gram.shape}, codes of shape {codes.shape} need [c, c] = "
    f"[{codes.shape[1]}, {codes.shape[1]}].",
  )
  require(
    jnp.issubdtype(codes.dtype, jnp.signedinteger) or jnp.issubdtype(codes.dtype, jnp.floating),
    f"dcc: codes are {codes.dtype}, which has no -1; give int8 or floats.",
  )
  require(num_sweeps >= 0, f"dcc: num_sweeps is {num_sweeps}, expected at least 0.")
  if codes.size == 0:
    return jnp.asarray(codes)
  if isinstance(linear, np.ndarray) and linear.dtype == np.float32 and codes.dtype in _CPU_TYPES:
    from udh_jax.cpu import sweeps

    if np.isfinite(gram).all() and _asymmetry(gram) <= _SYMMETRIC:
      found, sound = sweeps.sweep(
        np.asarray(codes), linear, np.asarray(gram, np.float32), num_sweeps
      )
      if sound:
        return jax.device_put(found, may_alias=True)  # nobody else writes to it
  require_finite("dcc: linear", linear)
  require_finite("dcc: gram", gram)
  require_unit("dcc: codes", jnp.asarray(codes))
  if isinstance(gram, np.ndarray) or (not is_traced(gram) and gram.is_fully_addressable):
    require(
      _asymmetry(gram) <= _SYMMETRIC,
      lambda: (
        f"dcc: gram is not symmetric (largest difference {_asymmetry(gram):.3g} of its "
        "largest value); give (A + A^T) / 2."
      ),
    )
  return _dcc(codes, linear, gram, num_sweeps=num_sweeps)


def _asymmetry(gram) -> float:
  """Largest difference between two entries that should be equal, as a share of the largest one."""
  matrix = np.asarray(gram, np.float64)
  return float(np.abs(matrix - matrix.T).max() / max(np.abs(matrix).max(), np.finfo(float).tiny))


@functools.partial(jax.jit, static_argnames="num_sweeps")
def _dcc(codes, linear, gram, *, num_sweeps):
  # Bits lie along the first axis, so that a bit of all rows is contiguous. A group of bits gets its
  # V A from one matrix product; inside the group the changes of earlier bits correct later ones.
  # That is the cyclic order exactly, at the speed of a matrix product instead of c matrix-vector
  # ones. The barriers keep XLA from computing earlier bits again inside the loop of each later one.
  c = codes.shape[1]
  dtype = jnp.promote_types(linear.dtype, jnp.float32)
  padding = -c % _GROUP  # a padded bit has A = 0, so it never acts on another one
  code = jnp.pad(codes.astype(dtype).T, ((0, padding), (0, 0)))  # [c', n]
  linear = jnp.pad(linear.astype(dtype).T, ((0, padding), (0, 0)))  # [c', n]
  gram = jnp.pad(gram.astype(dtype), ((0, padding), (0, padding)))

  def update_group(step, code):
    start = step % ((c + padding) // _GROUP) * _GROUP
    rows = lax.dynamic_slice_in_dim(gram, start, _GROUP)  # [g, c']
    inner = lax.dynamic_slice_in_dim(rows, start, _GROUP, axis=1)  # [g, g]
    old = lax.dynamic_slice_in_dim(code, start, _GROUP)  # [g, n]
    slope = lax.dynamic_slice_in_dim(linear, start, _GROUP) - lax.optimization_barrier(
      matmul(rows, code)
    )
    changes = []  # new less old, of the bits so far
    for pair in range(0, _GROUP, _PAIR):
      for i in range(pair, pair + _PAIR):
        corrected = slope[i] - sum(inner[i, j] * change for j, change in enumerate(changes))
        bit = jnp.where(corrected + inner[i, i] * old[i] >= 0, 1, -1).astype(dtype)
        changes.append(bit - old[i])
      changes[pair:] = lax.optimization_barrier(jnp.stack(changes[pair:]))
    bits = jnp.stack([before + change for before, change in zip(old, changes, strict=True)])
    return lax.dynamic_update_slice_in_dim(code, bits, start, axis=0)

  num_steps = num_sweeps * ((c + padding) // _GROUP)
  code = lax.fori_loop(0, num_steps, update_group, code)
  return code[:c].T.astype(codes.dtype)
