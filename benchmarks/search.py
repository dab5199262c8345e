"""Exact search against FAISS, and the recall of FAISS's other indexes.

python benchmarks/search.py
"""

import argparse
import time

import faiss
import jax
import machine
import numpy as np
from mean_average_precision import BITS, made_codes

from udh_jax.retrieval import HammingIndex


def timed(run, repeats):
  run()
  times = []
  for _ in range(repeats):
    start = time.perf_counter()
    result = run()
    times.append(time.perf_counter() - start)
  return float(np.median(times)), result


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--queries", type=int, default=1000)
  parser.add_argument("--items", type=int, default=1_000_000)
  parser.add_argument("--repeats", type=int, default=3)
  options = parser.parse_args()
  rng = np.random.default_rng(0)
  prototypes = rng.random((1000, BITS)) < 0.5
  codes, _ = made_codes(rng, prototypes, options.items)
  queries, _ = made_codes(rng, prototypes, options.queries)
  index = HammingIndex(codes, [""] * len(codes))
  flat = faiss.IndexBinaryFlat(BITS)
  flat.add(codes)
  device = jax.devices()[0]
  print(machine.describe(device))
  print(
    f"{options.queries:,} queries x {options.items:,} items, {BITS} bits; the same neighbours\n"
  )
  print("| k | FAISS, s | HammingIndex, s | ratio | by JAX alone, s | pairs/s of it |")
  print("| ---: | ---: | ---: | ---: | ---: | ---: |")
  for k in (10, 100, 1000):
    peer_time, (distances, _) = timed(lambda k=k: flat.search(queries, k), options.repeats)
    own_time, found = timed(lambda k=k: index.search(queries, k), options.repeats)
    jax_time, by_jax = timed(lambda k=k: index.search(queries, k, engine="jax"), options.repeats)
    np.testing.assert_array_equal(found.distances, distances)
    for a, b in zip(found, by_jax, strict=True):
      np.testing.assert_array_equal(a, b)
    pairs = options.queries * options.items / jax_time
    print(
      f"| {k} | {peer_time:.3f} | {own_time:.3f} | {peer_time / own_time:.2f} | {jax_time:.3f} | "
      f"{pairs:.2e} |",
      flush=True,
    )
  print("\n| FAISS index | recall@10 | ms a query |")
  print("| --- | ---: | ---: |")
  truth = index.search(queries, 10)
  for kind, settings in (
    ("flat", {}),
    ("ivf", {"num_probes": 4}),
    ("ivf", {"num_probes": 32}),
    ("hnsw", {"effort": 64}),
    ("multi_hash", {}),
  ):
    approximate = index.to_faiss(kind, **settings)
    seconds, (distances, _) = timed(lambda a=approximate: a.search(queries, 10), 1)
    # An item as near as the tenth is as good as any other of that distance.
    within = (distances <= truth.distances[:, -1:]) & (distances >= 0)
    words = ", ".join(f"{name} {value}" for name, value in settings.items())
    print(
      f"| {kind} {words} | {within.mean():.3f} | {1e3 * seconds / len(queries):.3f} |", flush=True
    )


if __name__ == "__main__":
  main()
