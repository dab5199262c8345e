"""One sweep of discrete cyclic coordinate descent against plain numpy, at NUS-WIDE's size.

python benchmarks/dcc.py

The values are multiples of 1/16, so that both sums are exact and the codes have to be identical.
"""

import argparse

import jax
import machine
import numpy as np

from udh_jax.coding.dcc import dcc
from udh_jax.cpu.choice import kernels

SAMPLED = 500


def plain_sweep(codes, linear, gram):
  """What published code does: one bit of all rows after another."""
  codes = codes.copy()
  for bit in range(codes.shape[1]):
    slope = linear[:, bit] - codes @ gram[:, bit] + gram[bit, bit] * codes[:, bit]
    codes[:, bit] = np.where(slope >= 0, 1, -1)
  return codes


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, default=186_577)
  parser.add_argument("--bits", type=int, default=64)
  parser.add_argument("--repeats", type=int, default=9)
  arguments = parser.parse_args()
  rng = np.random.default_rng(0)
  outputs = np.round(16 * np.tanh(rng.normal(size=(SAMPLED, arguments.bits)))) / 16
  gram = (outputs.T @ outputs).astype(np.float32)
  shape = (arguments.rows, arguments.bits)
  linear = (np.round(rng.normal(scale=300, size=shape) * 16) / 16).astype(np.float32)
  codes = np.where(rng.normal(size=shape) >= 0, 1, -1).astype(np.float32)
  on_device = [jax.device_put(x) for x in (codes, linear, gram)]

  inside = jax.jit(lambda *arrays: dcc(*arrays, num_sweeps=1))

  def by_jax():
    with kernels("jax"):
      return jax.block_until_ready(dcc(*on_device, num_sweeps=1))

  times = machine.paired(
    {
      "numpy": lambda: plain_sweep(codes, linear, gram),
      "udh_jax": lambda: jax.block_until_ready(dcc(*on_device, num_sweeps=1)),
      "JAX's kernels": by_jax,
      "JAX's kernels under jit": lambda: jax.block_until_ready(inside(*on_device)),
    },
    arguments.repeats,
  )
  print(machine.describe())
  print(
    f"{arguments.rows:,} x {arguments.bits}, one sweep; under jit nothing is checked. s: median "
    "(least to most). Ratios: medians of paired runs, with quartiles.\n"
  )
  print("| | s | times numpy | bits that differ |")
  print("|---|---|---|---|")
  for name, taken in times.items():
    different = int((times["numpy"].result != np.asarray(taken.result)).sum())
    print(f"| {name} | {taken} | {times['numpy'].ratio_to(taken)} | {different} |")


if __name__ == "__main__":
  main()
