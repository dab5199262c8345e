"""Stores beside the index: loading, exact and approximate search, sizes.

python benchmarks/stores.py --items 1000000
python benchmarks/stores.py --stores lancedb

PostgreSQL is the embedded one in a folder of its own, with the settings that it comes with. Systems
take turns, some queries each, so that what else the machine does strikes all of them alike.
"""

import argparse
import os
import pathlib
import tempfile
import time

import machine
import made
import numpy as np

from udh_jax import HammingIndex
from udh_jax.stores import create_store, index_to_store

BITS = 64
ABOUT = {"encoder": {"digest": "made", "source": ""}}
EFFORTS = (40, 100, 400)


def size_of(folder):
  return sum(path.stat().st_size for path in pathlib.Path(folder).rglob("*") if path.is_file())


def postgresql_sizes(store):
  """Bytes of the table, of the key and of the graph."""
  sql = (
    "SELECT pg_table_size('codes'), pg_relation_size('codes_pkey'), "
    "coalesce((SELECT pg_relation_size(indexrelid) FROM pg_index x JOIN pg_class c "
    "ON c.oid = x.indexrelid JOIN pg_am a ON a.oid = c.relam "
    "WHERE indrelid = 'codes'::regclass AND amname = 'hnsw'), 0)"
  )
  with store._server.connection("measuring") as connection:
    return connection.execute(sql).fetchone()


def timed(run):
  start = time.perf_counter()
  result = run()
  return time.perf_counter() - start, result


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--items", type=int, default=1_000_000)
  parser.add_argument("--queries", type=int, default=100)
  parser.add_argument("--turns", type=int, default=5)
  parser.add_argument("--stores", nargs="+", default=["postgresql", "lancedb"])
  options = parser.parse_args()
  rng = np.random.default_rng(0)
  prototypes = rng.random((1000, BITS)) < 0.5
  codes, _ = made.codes(rng, prototypes, options.items)
  queries, _ = made.codes(rng, prototypes, options.queries)
  names = [f"pictures/{i // 1000:06d}/{i:09d}.jpg" for i in range(options.items)]
  index = HammingIndex(codes, names, about=ABOUT)
  print(machine.describe())
  print(f"{options.items:,} items, {BITS} bits, names of {len(names[0])} bytes\n")
  with tempfile.TemporaryDirectory(prefix="udh_jax_") as folder:
    os.chmod(folder, 0o755)
    stores = {}
    print("| store | items/s loaded | approximate index, s | bytes an item | with the index |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for kind in options.stores:
      place = f"{folder}/{kind}"
      store = stores[kind] = create_store(f"{kind}:{place}", num_bits=BITS, about=ABOUT)
      loading, _ = timed(lambda store=store: index_to_store(index, store))
      before = sum(postgresql_sizes(store)) if kind == "postgresql" else size_of(place)
      building, _ = timed(store.build_index)
      after = sum(postgresql_sizes(store)) if kind == "postgresql" else size_of(place)
      print(
        f"| {kind} | {options.items / loading:,.0f} | {building:.0f} | "
        f"{before / options.items:.0f} | {after / options.items:.0f} |",
        flush=True,
      )
    truth = index.search(queries, 10)
    ways = {"index, one query at a time": lambda q: index.search(q, 10)}
    for kind, store in stores.items():
      ways[f"{kind}, exact"] = lambda q, store=store: store.nearest(q, 10)
      for effort in EFFORTS:
        ways[f"{kind}, effort {effort}"] = lambda q, store=store, effort=effort: store.nearest(
          q, 10, approximate=True, effort=effort
        )
    seconds = {way: [] for way in ways}
    found = {way: [] for way in ways}
    for run in ways.values():
      run(queries[:1])
    for rows in np.array_split(np.arange(options.queries), options.turns):
      for way, run in ways.items():
        for row in rows:
          time_taken, one = timed(lambda run=run, row=row: run(queries[row][None]))
          seconds[way].append(time_taken)
          found[way].append(one.distances[0] if way.startswith("index") else one[0].distances)
          if way.endswith("exact"):
            np.testing.assert_array_equal(one[0].distances, truth.distances[row])
            assert one[0].names == [names[i] for i in truth.indices[row]]
    print("\n| search of 10 | recall@10 | ms a query | queries/s | times the index's time |")
    print("| --- | ---: | ---: | ---: | ---: |")
    base = np.array(seconds[next(iter(ways))])
    for way in ways:
      recall = np.mean(
        [np.mean(d <= t[-1]) for d, t in zip(found[way], truth.distances, strict=True)]
      )
      median = float(np.median(seconds[way]))
      ratio = float(np.median(np.array(seconds[way]) / np.median(base)))
      print(f"| {way} | {recall:.3f} | {1e3 * median:.1f} | {1 / median:.0f} | {ratio:.2f} |")
    for store in stores.values():
      store.close()


if __name__ == "__main__":
  main()
