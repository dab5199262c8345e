"""Slow and plain versions of what rankings are scored by, and cases to score."""

import itertools
import math

import numpy as np


def bits_apart(a, b):
  return sum((int(x) ^ int(y)).bit_count() for x, y in zip(a, b, strict=True))


def is_relevant(a, b):
  return bool(a == b) if np.ndim(a) == 0 else any(x and y for x, y in zip(a, b, strict=True))


def plain_average_precision(ranked, cut, denominator):
  """AP of a list of booleans in ranked order."""
  found, total = 0, 0.0
  for rank, relevant in enumerate(ranked[:cut], start=1):
    if relevant:
      found += 1
      total += found / rank
  size = {"retrieved": found, "min_k": min(cut, sum(ranked)), "all": sum(ranked)}[denominator]
  return total / size if found else 0.0, found > 0


def plain_map(queries, database, query_labels, database_labels, at, denominator, empty):
  scores = []
  for code, label in zip(queries, query_labels, strict=True):
    order = sorted(range(len(database)), key=lambda i: (bits_apart(code, database[i]), i))
    ranked = [is_relevant(label, database_labels[i]) for i in order]
    score, found = plain_average_precision(ranked, at or len(ranked), denominator)
    if found or empty == "zero":
      scores.append(score)
  return sum(scores) / len(scores) if scores else math.nan


def tie_orders(distances, relevant):
  """Every order of the items by distance, all orders of equal ones, as lists of booleans."""
  groups = [
    [r for d, r in zip(distances, relevant, strict=True) if d == value]
    for value in sorted(set(distances))
  ]
  for parts in itertools.product(*(list(itertools.permutations(group)) for group in groups)):
    yield [r for part in parts for r in part]


def random_case(rng, q, n, num_bytes=2, high=256, classes=3, multi_hot=False):
  queries = rng.integers(0, high, (q, num_bytes), dtype=np.uint8)
  database = rng.integers(0, high, (n, num_bytes), dtype=np.uint8)
  if multi_hot:
    labels = [(rng.random((m, 11)) < 0.15).astype(int) for m in (q, n)]
  else:
    labels = [rng.integers(0, classes, m) for m in (q, n)]
  return queries, database, *labels
