"""mAP against the loop of published code: the same values, on the same made codes.

python benchmarks/mean_average_precision.py
python benchmarks/mean_average_precision.py --queries 100 --items 10000000 --without-peer

The loop is timed as it is published, with numpy's default argsort, which leaves the order of ties
to the processor; and once more with a stable one, whose score has to be equal to ours by index. All
take turns; ratios are medians of paired runs, with quartiles.
"""

import argparse
import functools

import machine
import made
import numpy as np

from udh_jax.cpu.choice import kernels
from udh_jax.retrieval import retrieval_scores

BITS = 64


def published_loop(queries, database, query_labels, database_labels, at, kind=None):
  """As DeepHash-pytorch and most others have it."""
  scores = []
  for query, label in zip(queries, query_labels, strict=True):
    relevant = (database_labels == label).astype(np.float32)
    distance = 0.5 * (BITS - query @ database.T)
    order = np.argsort(distance, kind=kind)
    found = relevant[order][:at]
    total = int(found.sum())
    if total == 0:
      scores.append(0.0)
      continue
    ranks = np.flatnonzero(found == 1) + 1.0
    scores.append(float(np.mean(np.arange(1, total + 1) / ranks)))
  return np.array(scores)


def signs(packed):
  """Codes as published code holds them, float32 in {-1, +1}."""
  return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--queries", type=int, nargs="+", default=[1000, 10_000])
  parser.add_argument("--items", type=int, default=50_000)
  parser.add_argument("--peer-queries", type=int, default=200, help="the loop takes so many")
  parser.add_argument("--repeats", type=int, default=5)
  parser.add_argument("--without-peer", action="store_true", help="nor JAX's kernels")
  options = parser.parse_args()
  rng = np.random.default_rng(0)
  prototypes = rng.random((10, BITS)) < 0.5
  database, database_labels = made.codes(rng, prototypes, options.items)
  before = machine.peak_memory()
  print(machine.describe())
  print("ms a query: median (least to most). Ratios: how many times as fast, with quartiles.\n")
  print("| queries x items | score | who | ms a query | times the loop | times JAX's kernels |")
  print("| --- | --- | --- | ---: | ---: | ---: |")
  for num_queries in options.queries:
    queries, labels = made.codes(rng, prototypes, num_queries)
    few = min(options.peer_queries, num_queries)
    case = queries, database, labels, database_labels
    loop_case = () if options.without_peer else (signs(queries[:few]), signs(database))
    for at, name in ((1000, "mAP@1000"), (None, "mAP@ALL")):

      def loop(kind=None, at=at, loop_case=loop_case, labels=labels[:few]):
        return published_loop(*loop_case, labels, database_labels, at, kind)

      def own(ties, by="auto", at=at, case=case):
        with kernels(by):
          return retrieval_scores(*case, at=at, ties=ties).average_precision[:, 0]

      runs = {
        "loop, as published": loop,
        "loop, stable sort": functools.partial(loop, "stable"),
        "udh_jax by index": functools.partial(own, "index"),
        "udh_jax in expectation": functools.partial(own, "expected"),
        "JAX's kernels by index": functools.partial(own, "index", "jax"),
        "JAX's kernels in expectation": functools.partial(own, "expected", "jax"),
      }
      if options.without_peer:
        runs = {who: run for who, run in runs.items() if who.startswith("udh_jax")}
      times = {
        who: taken.each(few if "loop" in who else num_queries)
        for who, taken in machine.paired(runs, options.repeats).items()
      }
      if not options.without_peer:
        scores = {who: taken.result for who, taken in times.items()}
        by_index = scores["udh_jax by index"]
        np.testing.assert_allclose(by_index[:few], scores["loop, stable sort"], rtol=1e-6)
        np.testing.assert_array_equal(by_index, scores["JAX's kernels by index"])
        np.testing.assert_allclose(
          scores["udh_jax in expectation"], scores["JAX's kernels in expectation"], rtol=1e-12
        )
      for who, taken in times.items():
        loop_ratio = jax_ratio = ""
        if "loop, as published" in times:
          loop_ratio = times["loop, as published"].ratio_to(taken)
          if who.startswith("udh_jax"):
            jax_ratio = times[who.replace("udh_jax", "JAX's kernels")].ratio_to(taken)
        shown = f"{num_queries:,} x {options.items:,} | {name} | {who} | {taken}"
        print(f"| {shown} | {loop_ratio} | {jax_ratio} |", flush=True)
  peak = machine.peak_memory()
  print(f"\npeak memory {peak:.2f} GiB, {peak - before:.2f} GiB above that of the made codes alone")


if __name__ == "__main__":
  main()
