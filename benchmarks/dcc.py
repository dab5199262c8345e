"""One sweep of discrete cyclic coordinate descent against plain numpy, at NUS-WIDE's size.

python benchmarks/dcc.py

The values are multiples of 1/16, so that both sums are exact and the codes have to be identical.
"""

import argparse
import os
import platform
import time

import jax
import numpy as np

from udh_jax.coding.dcc import dcc

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
  parser.add_argument("--repeats", type=int, default=5, help="timed runs; the median is printed")
  arguments = parser.parse_args()
  rng = np.random.default_rng(0)
  outputs = np.round(16 * np.tanh(rng.normal(size=(SAMPLED, arguments.bits)))) / 16
  gram = (outputs.T @ outputs).astype(np.float32)
  shape = (arguments.rows, arguments.bits)
  linear = (np.round(rng.normal(scale=300, size=shape) * 16) / 16).astype(np.float32)
  codes = np.where(rng.normal(size=shape) >= 0, 1, -1).astype(np.float32)
  on_device = [jax.device_put(x) for x in (codes, linear, gram)]

  solvers = {
    "numpy": lambda: plain_sweep(codes, linear, gram),
    "udh_jax": lambda: jax.block_until_ready(dcc(*on_device, num_sweeps=1)),
  }
  results = {name: np.asarray(run()) for name, run in solvers.items()}
  different = int((results["numpy"] != results["udh_jax"]).sum())
  times = {name: [] for name in solvers}
  for _ in range(arguments.repeats):  # In turns, so that a disturbance meets both.
    for name, run in solvers.items():
      start = time.perf_counter()
      run()
      times[name].append(time.perf_counter() - start)
  numpy_time, own = (float(np.median(times[name])) for name in solvers)
  print(f"{platform.platform()}, {os.cpu_count()} cores, jax {jax.__version__}")
  print(f"{arguments.rows:,} x {arguments.bits}, one sweep, checks of the input included\n")
  print("| numpy, s | udh_jax, s | ratio | bits that differ |")
  print("|---|---|---|---|")
  print(f"| {numpy_time:.3f} | {own:.3f} | {numpy_time / own:.1f} | {different} |")


if __name__ == "__main__":
  main()
