"""Time and peak memory over the number of rows: clustering, search, scores.

  python benchmarks/growth.py
  python benchmarks/growth.py --rows 100000 1000000 --what search mAP

Each row of the table is a process of its own, so that the peak is its own too; made data, whose
memory is printed apart. Linear growth is a constant last column.
"""

import argparse
import time

import machine
import made

UNITS = {  # What the last column counts, for one row of the data.
  "k-means": "us a row and iteration",
  "search": "ns a pair",
  "mAP": "ns a pair",
}


def work(arguments):
  """One measurement: seconds, GiB, and the time of each unit."""
  import jax
  import numpy as np

  rows = arguments.rows[0]
  (what,) = arguments.what
  rng = np.random.default_rng(0)

  def measured(run, units):
    if what != "k-means":  # compiling is a small part of k-means; its second call would double all
      run(1000)
    before, start = machine.peak_memory(), time.perf_counter()
    run(rows)
    seconds = time.perf_counter() - start
    return {
      "seconds": seconds,
      "before": before,
      "peak": machine.peak_memory(),
      "each": seconds / units,
    }

  if what == "k-means":
    from udh_jax import equal_size_kmeans

    features = made.features(rng, rows, arguments.dim)

    def cluster(rows):
      out = equal_size_kmeans(
        features[:rows],
        arguments.clusters,
        key=jax.random.key(0),
        max_iterations=arguments.iterations,
        hard_iterations=1,
      )
      sizes = np.asarray(out.sizes)
      assert sizes.max() - sizes.min() <= 1

    return measured(cluster, 1e-6 * rows * arguments.iterations)

  from udh_jax import mean_average_precision, search

  prototypes = rng.random((1000, 64)) < 0.5
  codes, labels = made.codes(rng, prototypes, rows)
  queries, query_labels = made.codes(rng, prototypes, arguments.queries)
  pairs = 1e-9 * rows * arguments.queries
  if what == "search":
    return measured(lambda rows: search(queries, codes[:rows], 100), pairs)
  return measured(
    lambda rows: mean_average_precision(queries, codes[:rows], query_labels, labels[:rows]), pairs
  )


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000])
  parser.add_argument("--what", nargs="+", choices=[*UNITS], default=[*UNITS])
  parser.add_argument("--dim", type=int, default=64)
  parser.add_argument("--clusters", type=int, default=1000)
  parser.add_argument("--iterations", type=int, default=2)
  parser.add_argument("--queries", type=int, default=100)
  arguments = machine.parsed(parser, work)
  print(machine.describe())
  print(
    f"k-means: {arguments.dim} dimensions, K = {arguments.clusters:,}, {arguments.iterations} "
    f"iterations, compiling included; search of 100 and mAP@ALL by index: {arguments.queries} "
    "queries, 64 bits\n"
  )
  print("| what | rows | s | peak, GiB | of it beyond the data | time of each |")
  print("| --- | ---: | ---: | ---: | ---: | ---: |")
  for what in arguments.what:
    for rows in arguments.rows:
      taken = machine.run_again("--what", what, "--rows", str(rows))
      print(
        f"| {what} | {rows:,} | {taken['seconds']:.3g} | {taken['peak']:.2f} | "
        f"{taken['peak'] - taken['before']:.2f} | {taken['each']:.3g} {UNITS[what]} |",
        flush=True,
      )


if __name__ == "__main__":
  main()
