"""LanceDB alone: machines that write at once, and a version that counts wrongly."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from udh_jax.commands.store_flags import finish
from udh_jax.errors import InputError
from udh_jax.stores import StoreError, create_store, open_store
from udh_jax.stores.lance import require_true_distances

lancedb = pytest.importorskip("lancedb")
ROOT = pathlib.Path(__file__).resolve().parents[2]

WRITER = """
import sys, numpy as np
from udh_jax.stores import create_store
location, writer = sys.argv[1], int(sys.argv[2])
store = create_store(location, num_bits=8)
for turn in range(4):
  shared = [f"shared {turn} {i}" for i in range(20)]
  own = [f"own {writer} {turn} {i}" for i in range(20)]
  store.upsert(shared + own, np.full((40, 1), writer, np.uint8))
store.delete([f"own {writer} 0 {i}" for i in range(20)])
"""


@pytest.mark.slow
def test_processes_that_write_at_once(tmp_path):
  location = f"lancedb:{tmp_path}"
  writers = [
    subprocess.Popen(
      [sys.executable, "-c", WRITER, location, str(writer)],
      cwd=ROOT,
      stderr=subprocess.PIPE,
      text=True,
    )
    for writer in range(4)
  ]
  for process in writers:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
  store = open_store(location)
  names = [name for part in store.names() for name in part]
  assert len(names) == len(set(names)) == store.count() == 4 * 20 + 4 * 3 * 20
  for turn in range(4):
    codes = store.get([f"shared {turn} {i}" for i in range(20)]).codes
    assert codes.shape == (20, 1)
    assert len(np.unique(codes)) == 1  # one writer's, whole
  store.optimize()
  assert [name for part in store.names() for name in part] == names


def test_another_connection_sees_what_was_written(tmp_path):
  first = create_store(f"lancedb:{tmp_path}", num_bits=8)
  second = open_store(f"lancedb:{tmp_path}")
  first.upsert(["a"], np.zeros((1, 1), np.uint8))
  assert second.nearest(np.zeros((1, 1), np.uint8), 1)[0].names == ["a"]
  second.upsert(["b"], np.zeros((1, 1), np.uint8))
  assert first.nearest(np.zeros((1, 1), np.uint8), 2)[0].names == ["a", "b"]


def test_names_are_indexed_once(tmp_path):
  store = create_store(f"lancedb:{tmp_path}", num_bits=8)
  for i in range(3):
    store.upsert([f"{i} {j}" for j in range(50)], np.zeros((50, 1), np.uint8))
    store.optimize()
    (index,) = lancedb.connect(tmp_path).open_table("codes").list_indices()
    assert index.columns == ["name"]
    statistics = lancedb.connect(tmp_path).open_table("codes").index_stats(index.name)
    assert statistics.num_unindexed_rows == 0
  assert not store.has_index()  # an approximate one


@pytest.fixture
def counts_bytes(monkeypatch):
  """LanceDB as it was: it counts bytes that differ, not bits; off until called."""
  builder = lancedb.query.LanceVectorQueryBuilder
  read = builder.to_arrow

  def wrong(self):
    table = read(self)
    distances = (table["_distance"].to_numpy() + 7) // 8
    place = table.column_names.index("_distance")
    return table.set_column(place, "_distance", [distances])

  yield lambda: monkeypatch.setattr(builder, "to_arrow", wrong)
  require_true_distances.cache_clear()


def test_a_version_that_counts_bytes_is_refused(tmp_path, counts_bytes):
  store = create_store(f"lancedb:{tmp_path}", num_bits=64)
  store.upsert(["a", "b"], np.array([[0] * 8, [3] * 8], np.uint8))
  assert store.nearest(np.zeros((1, 8), np.uint8), 2)[0].distances.tolist() == [0, 16]
  counts_bytes()
  with pytest.raises(StoreError, match="counts Hamming distances wrongly"):
    store.nearest(np.zeros((1, 8), np.uint8), 2)
  require_true_distances.cache_clear()
  with pytest.raises(StoreError, match=r"^lancedb \d.*wrongly.*pip install"):
    open_store(f"lancedb:{tmp_path}")


def test_places_that_cannot_be_used(tmp_path):
  (tmp_path / "file").write_text("no folder")
  with pytest.raises(StoreError, match=r"making the table failed|connecting failed"):
    create_store(f"lancedb:{tmp_path / 'file'}", num_bits=8)
  with pytest.raises(StoreError, match="no table of codes"):
    open_store(f"lancedb:{tmp_path / 'absent'}")
  with pytest.raises(InputError, match="cannot name a table"):
    create_store(f"lancedb:{tmp_path}", num_bits=8, table="a/b")
  with pytest.raises(InputError, match="no schemas"):
    create_store(f"lancedb:{tmp_path}", num_bits=8, schema="x")
  lancedb.connect(tmp_path).create_table("other", [{"x": 1}])
  with pytest.raises(InputError, match="not a table of udh_jax"):
    open_store(f"lancedb:{tmp_path}", table="other")


def test_a_store_that_is_only_searched_makes_no_folder(tmp_path):
  with pytest.raises(StoreError, match="has no table of codes"):
    open_store(f"lancedb:{tmp_path / 'absent'}")
  assert list(tmp_path.iterdir()) == []


def test_an_index_that_another_writer_s_conflict_took_is_made_again(tmp_path, rng, monkeypatch):
  with create_store(f"lancedb:{tmp_path}", num_bits=8) as store:
    store.upsert([str(i) for i in range(300)], rng.integers(0, 256, (300, 1), dtype=np.uint8))
    store.build_index()
    store.upsert(["new"], np.zeros((1, 1), np.uint8))
    build, left = store.build_index, [True]

    def conflict():
      if left:
        left.pop()
        raise StoreError("Retryable commit conflict")
      build()

    monkeypatch.setattr(store, "build_index", conflict)
    finish(store, build_index=True)
    assert store.has_index() and left == []
