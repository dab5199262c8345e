"""Distances of a block, for the processor there is and for one without vector look-ups."""

import os
import pathlib
import platform
import subprocess
import sys

import numpy as np
import pytest

from udh_jax.cpu import distances, lookup
from udh_jax.cpu.widths import distance_dtype

ROOT = pathlib.Path(__file__).parents[2]


def distances_of_tile(query, items):
  """Of one query to as many items as a tile has; and how many those are."""
  rows = np.ascontiguousarray(items).reshape(-1)
  tile = distances.empty_tile(items.shape[1])
  out = np.empty(distances.BLOCK, distance_dtype(items.shape[1]))
  part = np.empty(distances.BLOCK, np.uint8)
  found = []
  distances.turn(rows, items.shape[1], 0, min(len(items), 8 * tile.shape[1]), tile)
  for start in range(0, 8 * tile.shape[1], distances.BLOCK):
    prepared = distances.prepared(query[None])[0]
    distances.block_distances(prepared, tile.view(np.uint8), start, part, out)
    found.append(out.copy())
  return np.concatenate(found)


@pytest.mark.parametrize("num_bytes", [1, 2, 3, 4, 7, 8, 9, 16, 24, 31, 32, 33, 64, 128])
@pytest.mark.parametrize("num_items", [1, 9, 255, 256, 700])
def test_distances_are_the_bits_that_differ(rng, num_bytes, num_items):
  query = rng.integers(0, 256, num_bytes, np.uint8)
  items = rng.integers(0, 256, (num_items, num_bytes), np.uint8)
  items[-1], items[0] = ~query, query  # the least and, where there are two, the most
  found = distances_of_tile(query, items)
  count = min(num_items, len(found))
  expected = np.unpackbits(items ^ query, axis=1).sum(axis=1)
  np.testing.assert_array_equal(found[:count], expected[:count])


@pytest.mark.slow
@pytest.mark.skipif(not lookup.by_table(), reason="this processor is served by counting already")
def test_a_processor_without_look_ups_counts_and_finds_the_same(tmp_path):
  environment = os.environ | {
    "NUMBA_CPU_NAME": "x86-64" if platform.machine() == "x86_64" else "generic",
    "NUMBA_CPU_FEATURES": "",
    "NUMBA_CACHE_DIR": str(tmp_path),
  }
  said = subprocess.run(
    [sys.executable, "-c", "from udh_jax.cpu import lookup; print(lookup.by_table())"],
    env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
  )  # fmt: skip
  assert said.stdout.strip() == "False"
  subprocess.run(
    [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/cpu/test_distances.py",
     "tests/retrieval/test_hamming.py", "-k", "numba or bits_that_differ"],
    env=environment, cwd=ROOT, check=True,
  )  # fmt: skip
