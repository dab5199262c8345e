"""Exact search against FAISS, and the recall of FAISS's other indexes.

python benchmarks/search.py
python benchmarks/search.py --bits 64 --queries 1     # one question at a time

All take turns; ratios are medians of paired runs, with quartiles. Neighbours are compared.
"""

import argparse
import functools

import faiss
import jax
import machine
import made
import numpy as np

from udh_jax import HammingIndex, search
from udh_jax.cpu.choice import kernels


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--queries", type=int, default=1000)
  parser.add_argument("--items", type=int, default=1_000_000)
  parser.add_argument("--bits", type=int, nargs="+", default=[64, 256])
  parser.add_argument("--neighbours", type=int, nargs="+", default=[10, 100, 1000])
  parser.add_argument("--repeats", type=int, default=5)
  options = parser.parse_args()
  print(machine.describe(f"faiss {faiss.__version__}", jax.devices()[0]))
  print(
    f"{options.queries:,} queries x {options.items:,} items, the same neighbours. s: median (least "
    "to most). Ratios: how many times as fast as FAISS, with quartiles.\n"
  )
  print("| bits | k | who | s | times FAISS | pairs/s |")
  print("| ---: | ---: | --- | ---: | ---: | ---: |")
  for num_bits in options.bits:
    rng = np.random.default_rng(0)
    prototypes = rng.random((1000, num_bits)) < 0.5
    codes, _ = made.codes(rng, prototypes, options.items)
    queries, _ = made.codes(rng, prototypes, options.queries)
    index = HammingIndex(codes, [""] * len(codes))
    flat = faiss.IndexBinaryFlat(num_bits)
    flat.add(codes)
    on_device = jax.device_put(codes)

    def by_jax(k, queries=queries, codes=on_device):
      with kernels("jax"):
        return jax.block_until_ready(search(queries, codes, k))

    for k in options.neighbours:
      times = machine.paired(
        {
          "FAISS": functools.partial(flat.search, queries, k),
          "udh_jax.search": functools.partial(search, queries, codes, k),
          "HammingIndex": functools.partial(index.search, queries, k),
          "JAX's kernels": functools.partial(by_jax, k),
        },
        options.repeats,
      )
      own = times["udh_jax.search"].result
      np.testing.assert_array_equal(own.distances, times["FAISS"].result[0])
      for who in ("HammingIndex", "JAX's kernels"):
        for a, b in zip(own, times[who].result, strict=True):
          np.testing.assert_array_equal(a, b)
      for who, taken in times.items():
        ratio = times["FAISS"].ratio_to(taken)
        rate = options.queries * options.items / np.median(taken.runs)
        print(f"| {num_bits} | {k} | {who} | {taken} | {ratio} | {rate:.2e} |", flush=True)
    if num_bits == 64:
      recall = index, queries, codes
  if 64 in options.bits:
    print_recall(*recall)


def print_recall(index, queries, codes):
  """What FAISS's approximate indexes find of the ten nearest."""
  print("\n| FAISS index, 64 bits | recall@10 | ms a query |")
  print("| --- | ---: | ---: |")
  truth = search(queries, codes, 10)
  for kind, settings in (
    ("flat", {}),
    ("ivf", {"num_probes": 4}),
    ("ivf", {"num_probes": 32}),
    ("hnsw", {"effort": 64}),
    ("multi_hash", {}),
  ):
    approximate = index.to_faiss(kind, **settings)
    taken = machine.paired({kind: functools.partial(approximate.search, queries, 10)}, 1)[kind]
    # An item as near as the tenth is as good as any other of that distance.
    distances = taken.result[0]
    within = (distances <= truth.distances[:, -1:]) & (distances >= 0)
    words = ", ".join(f"{name} {value}" for name, value in settings.items())
    milliseconds = np.median(taken.each(len(queries)).runs)
    print(f"| {kind} {words} | {within.mean():.3f} | {milliseconds:.3f} |", flush=True)


if __name__ == "__main__":
  main()
