"""What an asymmetric search gains: python benchmarks/asymmetric.py --workdir RUN [RUN ...].

Of finished runs on pictures: mAP@ALL and precision of the first 10 by Hamming distance, and by the
encoder's outputs for the queries (`udh_jax.retrieval.asymmetric_search`), of the same codes. Items
of equal codes stand in one random order. ``--items N`` times both searches on N random codes, and
the asymmetric one by JAX's kernel too, which serves where numba or AVX2 is missing.
"""

import argparse
import functools
import pathlib
import time

import numpy as np
from machine import describe

from udh_jax import HammingIndex, load_encoder
from udh_jax.cpu import choice
from udh_jax.data.registry import load_dataset
from udh_jax.methods.run import stored_config

BLOCK = 64  # pictures or queries at once


def in_blocks(function, rows):
  """Calls a function on blocks of one size and joins what it returns."""
  found = []
  for start in range(0, len(rows), BLOCK):
    block = rows[start : start + BLOCK]
    found.append(function(block[np.arange(BLOCK) % len(block)])[: len(block)])
  return np.concatenate(found)


def scores(ranked, relevant):
  """mAP over all items, and precision of the first 10.

  Args:
    ranked: Items of each query, nearest first. Integer array of shape ``[q, n]``.
    relevant: bool array of shape ``[q, n]``, by item.
  """
  hits = np.take_along_axis(relevant, ranked, axis=1)
  precision = np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)
  average = (precision * hits).sum(axis=1) / np.maximum(hits.sum(axis=1), 1)
  return average.mean(), hits[:, :10].mean()


def relevance(labels, query, database):
  own, others = labels[query], labels[database]
  if labels.ndim == 1:
    return (own[:, None] == others) & (own[:, None] >= 0)
  return own.astype(np.float32) @ others.T.astype(np.float32) > 0


def ranking(search, k, queries):
  return search(queries, k).indices


def compare(workdir):
  """A line for each length of a run's codes, and its encoders' scores."""
  dataset = load_dataset(stored_config(workdir).data)
  query = dataset.splits.query
  database = np.random.default_rng(0).permutation(dataset.splits.database)
  relevant = relevance(np.asarray(dataset.labels), query, database)
  pictures = {int(row): dataset.images[int(row)] for row in {*query, *database}}

  def read(function, rows):
    return in_blocks(lambda block: function(np.stack([pictures[int(i)] for i in block])), rows)

  folders = sorted(workdir.glob("encoder_*bits"), key=lambda path: int(path.name[8:-4]))
  for folder in folders:
    encoder = load_encoder(folder)
    index = HammingIndex(
      read(encoder, database), [str(row) for row in database], num_bits=encoder.about["bits"]
    )
    outputs, codes = read(encoder.outputs, query), read(encoder, query)
    nearest = in_blocks(functools.partial(ranking, index.search, len(index)), codes)
    similar = in_blocks(functools.partial(ranking, index.asymmetric_search, len(index)), outputs)
    cells = [*scores(nearest, relevant), *scores(similar, relevant)]
    name = f"{workdir}: {encoder.about['method']}, {index.num_bits} bits"
    print(f"| {name} | " + " | ".join(f"{cells[i]:.3f}" for i in (0, 2, 1, 3)) + " |", flush=True)


def median_of_five(search, queries, k):
  search(queries, k)
  seconds = []
  for _ in range(5):
    start = time.perf_counter()
    search(queries, k)
    seconds.append(time.perf_counter() - start)
  return np.median(seconds)


def time_both(num_items):
  """Seconds of each search on random codes, the median of five, and ratios to Hamming's."""
  rng = np.random.default_rng(0)
  print(describe())
  print("| bits | queries | k | Hamming, s | asymmetric, s | ratio | by JAX, s | ratio |")
  print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
  for bits in (32, 64):
    codes = rng.integers(0, 256, (num_items, bits // 8), dtype=np.uint8)
    index = HammingIndex(codes, [""] * num_items)
    for num_queries, k in ((1, 10), (64, 10), (1, 1000), (64, 1000)):
      outputs = rng.normal(size=(num_queries, bits)).astype(np.float32)
      queries = np.packbits(outputs >= 0, axis=1)
      hamming = median_of_five(index.search, queries, k)
      cells = [f"{bits} | {num_queries} | {k:,} | {hamming:.4f}"]
      for kernels in ("auto", "jax"):
        with choice.kernels(kernels):
          seconds = median_of_five(index.asymmetric_search, outputs, k)
        cells.append(f"{seconds:.4f} | {seconds / hamming:.1f}")
      print(f"| {' | '.join(cells)} |", flush=True)


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--workdir", nargs="*", default=[], type=pathlib.Path)
  parser.add_argument("--items", type=int, help="time both searches on so many random codes")
  options = parser.parse_args()
  if not options.workdir and not options.items:
    parser.error("give --workdir, --items or both")
  if options.workdir:
    print("| run | mAP@ALL, Hamming | asymmetric | first 10, Hamming | asymmetric |")
    print("| --- | ---: | ---: | ---: | ---: |")
  for workdir in options.workdir:
    compare(workdir)
  if options.items:
    time_both(options.items)


if __name__ == "__main__":
  main()
