"""Discrete cyclic coordinate descent on the CPU: a few rows after another, all their bits."""

import numpy as np

from udh_jax.cpu.compiled import compiled, fixed, run_in_threads, split

_ROWS = 64  # whose bits and linear terms stay in a near cache while they are swept
_TASK = 4096
_ALIGNMENT = 64  # bytes, with which JAX takes a NumPy array over without a copy


def sweep(
  codes: np.ndarray, linear: np.ndarray, gram: np.ndarray, num_sweeps: int
) -> tuple[np.ndarray, bool]:
  """The codes of `udh_jax.coding.dcc.dcc`, and whether its input was sound.

  Args:
    codes: Array of shape ``[n, c]``, n and c at least 1.
    linear: float32 array of shape ``[n, c]``.
    gram: float32 array of shape ``[c, c]``.
    num_sweeps: How many times to cycle through the bits.

  Returns:
    Codes ``[n, c]`` of the same dtype; and False, with codes that mean nothing, where a linear term
    is not finite or a code neither -1 nor 1.
  """
  out = _aligned(codes.shape, codes.dtype)
  padding = -codes.shape[1] % 8  # a padded bit has A = 0, so it never acts on another one
  gram = fixed(np.pad(gram, ((0, padding), (0, padding))))
  codes, linear = fixed(codes), fixed(linear)
  sound = np.ones(1, bool)

  def run(low, high):
    shape = gram.shape[0], _ROWS
    scratch = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    if not _sweep(codes[low:high], linear[low:high], gram, num_sweeps, *scratch, out[low:high]):
      sound[0] = False

  run_in_threads(run, split(len(codes), _TASK))
  return out, bool(sound[0])


def _aligned(shape, dtype):
  size = int(np.prod(shape)) * np.dtype(dtype).itemsize
  memory = np.empty(size + _ALIGNMENT, np.uint8)
  start = -memory.ctypes.data % _ALIGNMENT
  return memory[start : start + size].view(dtype).reshape(shape)


@compiled(fused=True)
def _sweep(codes, linear, gram, num_sweeps, code, term, out):
  # A bit of all rows of the block lies side by side: code and term are [bits, rows].
  num_rows, num_bits = codes.shape
  total = np.empty(_ROWS, np.float32)
  sound = True
  for start in range(0, num_rows, _ROWS):
    count = min(_ROWS, num_rows - start)
    wrong = 0
    for row in range(count):
      for bit in range(num_bits):
        value = np.float32(codes[start + row, bit])
        code[bit, row], term[bit, row] = value, linear[start + row, bit]
    for bit in range(num_bits):
      for row in range(count):
        # Of what is not finite, the product with 0 is not a number.
        wrong += (abs(code[bit, row]) != 1) | (term[bit, row] * np.float32(0) != 0)
    sound = sound and wrong == 0
    for _ in range(num_sweeps):
      for bit in range(num_bits):
        total[:] = 0
        for other in range(0, len(gram), 8):
          a, v = gram[bit, other : other + 8], code[other : other + 8]
          a0, a1, a2, a3, a4, a5, a6, a7 = a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]
          for row in range(_ROWS):
            total[row] += (
              a0 * v[0, row]
              + a1 * v[1, row]
              + a2 * v[2, row]
              + a3 * v[3, row]
              + a4 * v[4, row]
              + a5 * v[5, row]
              + a6 * v[6, row]
              + a7 * v[7, row]
            )
        own, bits, terms = gram[bit, bit], code[bit], term[bit]
        for row in range(_ROWS):
          slope = terms[row] - total[row] + own * bits[row]
          bits[row] = np.float32(1) if slope >= 0 else np.float32(-1)
    for row in range(count):
      for bit in range(num_bits):
        out[start + row, bit] = code[bit, row]
  return sound
