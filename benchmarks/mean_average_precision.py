"""mAP against the loop of published code: the same values, on the same made codes.

python benchmarks/mean_average_precision.py
python benchmarks/mean_average_precision.py --items 10000000 --without-peer
"""

import argparse
import time

import machine
import numpy as np

from udh_jax.retrieval import retrieval_scores

BITS = 64


def made_codes(rng, prototypes, size):
  """Codes around one prototype a class, three bits in ten flipped: tied and mixed as real ones."""
  labels = rng.integers(len(prototypes), size=size)
  packed = np.empty((size, BITS // 8), np.uint8)
  for start in range(0, size, 1 << 18):
    rows = slice(start, start + (1 << 18))
    flips = rng.random((len(labels[rows]), BITS), np.float32) < 0.3
    packed[rows] = np.packbits(prototypes[labels[rows]] ^ flips, axis=1)
  return packed, labels


def published_loop(queries, database, query_labels, database_labels, at):
  """As DeepHash-pytorch and most others have it, but for the order of ties, which is by index."""
  database = np.unpackbits(database, axis=1).astype(np.float32) * 2 - 1
  scores = []
  for query, label in zip(queries, query_labels, strict=True):
    relevant = (database_labels == label).astype(np.float32)
    code = np.unpackbits(query).astype(np.float32) * 2 - 1
    distance = 0.5 * (BITS - code @ database.T)
    order = np.argsort(distance, kind="stable")
    found = relevant[order][:at]
    total = int(found.sum())
    if total == 0:
      scores.append(0.0)
      continue
    ranks = np.flatnonzero(found == 1) + 1.0
    scores.append(float(np.mean(np.arange(1, total + 1) / ranks)))
  return float(np.mean(scores))


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--queries", type=int, nargs="+", default=[1000, 10_000])
  parser.add_argument("--items", type=int, default=50_000)
  parser.add_argument("--peer-queries", type=int, default=1000, help="the loop takes so many")
  parser.add_argument("--without-peer", action="store_true")
  options = parser.parse_args()
  rng = np.random.default_rng(0)
  prototypes = rng.random((10, BITS)) < 0.5
  database, database_labels = made_codes(rng, prototypes, options.items)
  before = machine.peak_memory()
  print(machine.describe())
  print("| queries x items | score | ties | loop, ms a query | udh_jax, ms a query | ratio |")
  print("| --- | --- | --- | ---: | ---: | ---: |")
  for num_queries in options.queries:
    queries, labels = made_codes(rng, prototypes, num_queries)
    case = queries, database, labels, database_labels
    for at, name in ((1000, "mAP@1000"), (None, "mAP@ALL")):
      loop_time = loop_score = None
      few = min(options.peer_queries, num_queries)
      if not options.without_peer:
        start = time.perf_counter()
        loop_score = published_loop(queries[:few], database, labels[:few], database_labels, at)
        loop_time = (time.perf_counter() - start) / few
      for ties in ("index", "expected"):
        if not options.without_peer:
          retrieval_scores(*case, at=(at,), ties=ties)  # compiled from here on
        start = time.perf_counter()
        found = retrieval_scores(*case, at=(at,), ties=ties)
        own_time = (time.perf_counter() - start) / num_queries
        if ties == "index" and loop_score is not None:
          own = float(found.average_precision[:few, 0].mean())
          np.testing.assert_allclose(own, loop_score, rtol=1e-6)
        peer = "" if loop_time is None else f"{1e3 * loop_time:.3f}"
        ratio = "" if loop_time is None else f"{loop_time / own_time:.1f}"
        print(
          f"| {num_queries:,} x {options.items:,} | {name} | {ties} | {peer} | "
          f"{1e3 * own_time:.3f} | {ratio} |",
          flush=True,
        )
  peak = machine.peak_memory()
  print(f"peak memory {peak:.2f} GiB, {peak - before:.2f} GiB above that of the made codes alone")


if __name__ == "__main__":
  main()
