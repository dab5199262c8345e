"""Distances by table, where the processor looks up 32 bytes at once and has no count of bits.

What a nibble of an item adds to the distance of a query is one of sixteen numbers. AVX2 reads such
a table for 32 items by one instruction; counting the bits of as many bytes costs it six.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic

_LANES = 32  # bytes of a register
_LOOK_UP = "llvm.x86.avx2.pshuf.b"
_ADD = "llvm.uadd.sat.v32i8"

_BITS = np.array([[(a ^ b).bit_count() for b in range(16)] for a in range(16)], np.uint8)


def has_look_ups() -> bool:
  """Whether kernels are compiled for a processor that has AVX2."""
  return "+avx2" in _features()


def by_table() -> bool:
  """Whether kernels are compiled for one that has AVX2 and does not count bits of bytes."""
  return has_look_ups() and "+avx512bitalg" not in _features()


def _features() -> list[str]:
  return cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def tables(codes: np.ndarray) -> np.ndarray:
  """What each nibble of a query adds: uint8 ``[q, bytes]`` to ``[q, 2 * bytes * 16]``.

  The tables of the lower nibbles of all bytes come first, then those of the upper ones.
  """
  nibbles = np.concatenate([codes & 15, codes >> 4], axis=1)
  return _BITS[nibbles].reshape(len(codes), -1)


@intrinsic
def add_looked_up(typing_context, query, nibbles, start, first, stop, out):
  """Adds up what some rows of nibbles say of 256 items, each by its own table.

  Args:
    query: Tables, flat: uint8 ``[rows * 16]``.
    nibbles: Rows of nibbles: uint8 ``[rows, items]``.
    start: First of the items.
    first: First of the rows.
    stop: The row after the last; later than ``first``.
    out: uint8 ``[256]``, written over; sums beyond 255 are 255.
  """

  def generate(context, builder, signature, arguments):
    byte, size = ir.IntType(8), ir.IntType(64)
    table, register = ir.VectorType(byte, 16), ir.VectorType(byte, _LANES)

    def given(position):
      kind = context.make_array(signature.args[position])
      return kind(context, builder, arguments[position])

    def load(pointer, offset, kind):
      place = builder.bitcast(builder.gep(pointer, [offset]), kind.as_pointer())
      return builder.load(place, align=1)

    look_up, add = (
      builder.module.globals.get(name)
      or ir.Function(builder.module, ir.FunctionType(register, [register, register]), name)
      for name in (_LOOK_UP, _ADD)
    )
    tables, rows, found = (given(position).data for position in (0, 1, 5))
    length = builder.extract_value(given(1).shape, 1)
    start, first, stop = arguments[2:5]
    offsets = [ir.Constant(size, offset) for offset in range(0, 256, _LANES)]
    before = builder.block
    loop, after = (builder.append_basic_block(name) for name in ("rows", "after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    row = builder.phi(size)
    row.add_incoming(first, before)
    sums = [builder.phi(register) for _ in offsets]
    both_halves = ir.Constant(ir.VectorType(ir.IntType(32), _LANES), 2 * list(range(16)))
    own = builder.shuffle_vector(
      load(tables, builder.mul(row, ir.Constant(size, 16)), table),
      ir.Constant(table, ir.Undefined),
      both_halves,
    )
    items = builder.gep(rows, [builder.add(builder.mul(row, length), start)])
    following = builder.add(row, ir.Constant(size, 1))
    row.add_incoming(following, loop)
    totals = []
    for total, offset in zip(sums, offsets, strict=True):
      said = builder.call(look_up, [own, load(items, offset, register)])
      added = builder.call(add, [total, said])
      total.add_incoming(ir.Constant(register, [0] * _LANES), before)
      total.add_incoming(added, loop)
      totals.append(added)
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, after)
    builder.position_at_end(after)
    for total, offset in zip(totals, offsets, strict=True):
      place = builder.bitcast(builder.gep(found, [offset]), register.as_pointer())
      builder.store(total, place, align=1)
    return context.get_dummy_value()

  return types.void(query, nibbles, types.intp, types.intp, types.intp, out), generate
