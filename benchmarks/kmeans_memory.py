"""Peak memory of equal-size k-means at a size whose plan alone would take 4 GB.

  python benchmarks/kmeans_memory.py

A subprocess does the work, so that the peak is its own; what Python, JAX and the features take
before the call is printed apart.
"""

import argparse
import time

import machine


def work(arguments):
  """Clusters made features and returns what it took."""
  import jax
  import numpy as np

  from udh_jax.clustering.equal_size_kmeans import equal_size_kmeans

  rng = np.random.default_rng(0)
  features = rng.standard_normal((arguments.rows, arguments.dim), dtype=np.float32)
  features[:, 0] += rng.choice(5, arguments.rows).astype(np.float32) * 3
  before, start = machine.peak_memory(), time.perf_counter()
  out = equal_size_kmeans(
    features,
    arguments.clusters,
    key=jax.random.key(0),
    max_iterations=arguments.iterations,
    hard_iterations=1,
    chunk_size=arguments.chunk_size,
  )
  sizes = np.asarray(out.sizes)
  return {
    "seconds": time.perf_counter() - start,
    "before": before,
    "peak": machine.peak_memory(),
    "smallest": int(sizes.min()),
    "largest": int(sizes.max()),
    "inertia": float(out.inertia),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, default=1_000_000)
  parser.add_argument("--dim", type=int, default=64)
  parser.add_argument("--clusters", type=int, default=1000)
  parser.add_argument("--iterations", type=int, default=4)
  parser.add_argument("--chunk_size", type=int, default=16384)
  arguments, report = machine.measured_apart(parser, work)
  print(machine.describe())
  print(
    f"{arguments.rows:,} x {arguments.dim}, K = {arguments.clusters:,}, "
    f"{arguments.iterations} iterations, chunks of {arguments.chunk_size:,}\n"
  )
  plan = arguments.rows * arguments.clusters * 4 / 2**30
  print("| peak, GiB | before the call, GiB | the plan alone, GiB | plan / peak | s | sizes |")
  print("|---|---|---|---|---|---|")
  print(
    f"| {report['peak']:.2f} | {report['before']:.2f} | {plan:.2f} | {plan / report['peak']:.1f} "
    f"| {report['seconds']:.0f} | {report['smallest']} to {report['largest']} |"
  )


if __name__ == "__main__":
  main()
