"""Codes in a table of PostgreSQL, with the extension pgvector."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from udh_jax.errors import require, whole_number
from udh_jax.records import encoder_digest_of
from udh_jax.stores.interface import (
  RESERVED,
  Condition,
  DistinctNames,
  Found,
  Rows,
  Store,
  StoreError,
  Value,
  Where,
  checked_rows,
  conditions_of,
  name_problem,
  require_alike,
  require_columns,
  require_version,
)
from udh_jax.stores.postgresql_server import META, Bits, Place, Server

VERSION = 1
MOST_BITS = 64_000  # what its graph takes
MOST_CANDIDATES = 1000  # the largest hnsw.ef_search
_ITERATIVE = (0, 8)  # the first pgvector that goes on where a filter leaves too few
_TYPES = {"text": "text", "integer": "int8", "real": "float8", "boolean": "bool"}


def create_postgresql(
  url: str,
  *,
  num_bits: int,
  about: Mapping[str, Any] | None = None,
  columns: Mapping[str, str] | None = None,
  table: str = "codes",
  schema: str | None = None,
) -> "PostgreSQLStore":
  """Makes a table of codes; where it is there and holds the same kind of codes, opens it.

  Args:
    url: Of the server and database, as libpq reads it. What it leaves out comes from libpq's
      environment (PGPASSWORD) and files (``~/.pgpass``).
    num_bits: Length of the codes.
    about: JSON values by name; ``about["encoder"]["digest"]`` is compared where the table is there.
    columns: Metadata columns: a type of `COLUMN_TYPES` by name.
    table: Its name, of any characters.
    schema: Made where it is missing; None is the connection's own (``public``).

  Raises:
    InputError: If an argument is out of range, or the table is there with other codes or columns.
    StoreError: If the server cannot be reached, refuses, or has no pgvector that is new enough, or
      the table is there and is no table of codes.
  """
  columns, about = dict(columns or {}), dict(about or {})
  require_columns(columns)
  num_bits = whole_number("num_bits", num_bits)
  require(1 <= num_bits <= MOST_BITS, f"num_bits is {num_bits}, expected 1 to {MOST_BITS:,} here.")
  server = Server(url)
  try:
    place = server.place(schema, table)
    with server.connection("making the table") as connection:
      _make(connection, server, place, num_bits, about, columns)
    store = PostgreSQLStore(server, place)
  except BaseException:
    server.close()
    raise
  with contextlib.ExitStack() as stack:
    stack.callback(store.close)
    require_alike(store, num_bits, about, columns)
    stack.pop_all()
  return store


def open_postgresql(
  url: str, *, table: str = "codes", schema: str | None = None
) -> "PostgreSQLStore":
  """Opens a table that `create_postgresql` made.

  Args:
    url: As there.
    table: Its name.
    schema: Where it is; None is the connection's own.

  Raises:
    StoreError: If the server cannot be reached, or there is no such table or it is none of codes.
  """
  server = Server(url)
  try:
    return PostgreSQLStore(server, server.place(schema, table))
  except BaseException:
    server.close()
    raise


class PostgreSQLStore(Store):
  """A `Store` in a table: ``place``, ``name``, ``code`` and a column for each of ``columns``.

  Any thread may use it: each call borrows one of a few connections. A lost connection fails the
  call and is replaced for the next one.
  """

  most_candidates = MOST_CANDIDATES

  def __init__(self, server: "Server", place: Place):
    """Reads what a table holds; see `open_postgresql`."""
    self._server, self._place, self._indexed = server, place, False
    self.location = f"{server.shown} table {place.schema}.{place.table}"
    with server.connection("opening the table") as connection:
      row = _meta(connection, place)
      there = _columns(connection, place)
    if row is None:
      raise StoreError(
        f"{server.shown} has no table of codes {place.table!r} in schema {place.schema!r}; make "
        "one with udh-jax encode --store, or name another with --table."
      )
    version, self.num_bits, about, columns = row
    require_version(self.location, version, VERSION)
    self.about: dict[str, Any] = json.loads(about)
    self.columns: dict[str, str] = json.loads(columns)
    absent = [name for name in (*RESERVED, *self.columns) if name not in there]
    if absent:
      raise StoreError(
        f"{self.location} is no table of codes, though {META} has a row for it: it lacks the "
        f"columns {', '.join(absent)}; name another with --table, or remove that table."
      )

  def close(self) -> None:
    """Closes the connections."""
    self._server.close()

  def count(self, where: Where | None = None) -> int:
    """Number of items, of those that ``where`` selects."""
    conditions = conditions_of(where, self.columns)
    text = self._text("SELECT count(*) FROM {table}") + self._filter("WHERE", conditions, after=0)
    with self._server.connection("counting") as connection:
      return connection.execute(text, _values(conditions)).fetchone()[0]

  def load(self, batches: Iterable[Rows]) -> int:
    """Writes items in one transaction: all or, where anything fails, none; see `Store.load`.

    Writers take turns: a second one waits until the first one's transaction ends. Readers do not.
    """
    make = self._text(
      "CREATE TEMPORARY TABLE udh_jax_load ON COMMIT DROP AS "
      "SELECT 0::bigint AS _row, {columns} FROM {table} LIMIT 0",  # no column's name begins so
      columns=self._identifiers(["name", "code", *self.columns]),
    )
    written, distinct = 0, DistinctNames()
    with self._server.connection("writing") as connection, connection.cursor() as cursor:
      cursor.execute(self._text("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"))
      self._require_unchanged(connection)
      cursor.execute(make)
      for batch in batches:
        rows = checked_rows(batch, self.num_bits, self.columns)
        distinct.add(rows.names)
        copy, merge = self._copy_and_merge(rows.metadata)
        with cursor.copy(copy) as out:
          out.set_types(["int8", "text", "bit", *(_TYPES[self.columns[c]] for c in rows.metadata)])
          for i, (name, code, *more) in enumerate(
            zip(rows.names, rows.codes, *rows.metadata.values(), strict=True)
          ):
            out.write_row([i, name, Bits(self.num_bits, code.tobytes()), *more])
        cursor.execute(merge)
        cursor.execute("TRUNCATE udh_jax_load")
        written += len(rows.names)
      distinct.require()
    return written

  def _copy_and_merge(self, given: Iterable[str]) -> tuple[Any, Any]:
    """SQL that takes a batch with these columns of metadata in, and that writes it."""
    columns = ["name", "code", *given]
    listed = self._identifiers(columns)
    copy = self._text(
      "COPY udh_jax_load (_row, {columns}) FROM STDIN (FORMAT BINARY)", columns=listed
    )
    merge = self._text(
      "INSERT INTO {table} ({columns}) SELECT {columns} FROM udh_jax_load ORDER BY _row "
      "ON CONFLICT (name) DO UPDATE SET {assignments}",
      columns=listed,
      assignments=self._server.sql.SQL(", ").join(
        self._server.sql.SQL("{0} = excluded.{0}").format(self._server.sql.Identifier(column))
        for column in columns[1:]
      ),
    )
    return copy, merge

  def _delete(self, names: Sequence[str]) -> int:
    """Removes items; returns how many of the names were there."""
    text = self._text("DELETE FROM {table} WHERE name = ANY($1)")
    with self._connection("removing") as connection:
      return connection.execute(text, [_sendable(names)]).rowcount

  def _describe(self, about: Mapping[str, Any]) -> None:
    text = self._text("UPDATE {meta} SET about = $2 WHERE table_name = $1")
    with self._connection("describing the table") as connection:
      connection.execute(text, [self._place.table, json.dumps(about)])

  def _exact(self, k: int, conditions: Sequence[Condition]) -> Any:
    # The cast keeps the planner from the graph, whose order is not exact.
    return (
      self._text("SELECT name, (code {distance} $1)::int AS d FROM {table}")
      + self._filter("WHERE", conditions, after=1)
      + self._text(f" ORDER BY d, place LIMIT {int(k)}")
    )

  def _nearest(self, queries: np.ndarray, k: int, conditions: Sequence[Condition]) -> list[Found]:
    exact = self._exact(k, conditions)
    with self._connection("searching") as connection:
      return [self._found(connection, exact, query, conditions) for query in queries]

  def _nearest_by_index(
    self, queries: np.ndarray, k: int, conditions: Sequence[Condition], effort: int
  ) -> list[Found]:
    """Walks pgvector's graph, whose candidates PostgreSQL counts again."""
    exact = self._exact(k, conditions)
    graph = (
      self._text(
        "SELECT name, bit_count(code # $1)::int AS d FROM (SELECT name, code, place FROM {table}"
      )
      + self._filter("WHERE", conditions, after=1)
      + self._text(
        f" ORDER BY code {{distance}} $1 LIMIT {int(effort)}) AS candidates "
        f"ORDER BY d, place LIMIT {int(k)}"
      )
    )
    found = []
    with self._connection("searching") as connection:
      connection.execute(f"SET LOCAL hnsw.ef_search = {int(effort)}")
      if conditions and self._server.vector_version >= _ITERATIVE:
        connection.execute("SET LOCAL hnsw.iterative_scan = relaxed_order")
      for query in queries:
        some = self._found(connection, graph, query, conditions)
        if len(some.names) < k:
          some = self._found(connection, exact, query, conditions)
        found.append(some)
    return found

  def _within(
    self, queries: np.ndarray, radius: int, conditions: Sequence[Condition]
  ) -> list[Found]:
    text = (
      self._text(
        "SELECT name, (code {distance} $1)::int AS d FROM {table} "
        f"WHERE (code {{distance}} $1) <= {int(radius)}"
      )
      + self._filter("AND", conditions, after=1)
      + self._text(" ORDER BY d, place")
    )
    with self._connection("searching") as connection:
      return [self._found(connection, text, query, conditions) for query in queries]

  def _get(self, names: Sequence[str]) -> Rows:
    """The items of these names that are there, in the order of the names."""
    columns = self._identifiers(["name", "code", *self.columns])
    text = self._text("SELECT {columns} FROM {table} WHERE name = ANY($1)", columns=columns)
    with self._connection("reading") as connection:
      rows = connection.execute(text, [_sendable(names)], binary=True).fetchall()
    by_name = {row[0]: row for row in rows}
    return self._rows([by_name[name] for name in dict.fromkeys(names) if name in by_name])

  def rows(self, batch_size: int = 10_000) -> Iterator[Rows]:
    """All items in the order of their places, a batch at a time, of one moment."""
    columns = self._identifiers(["name", "code", *self.columns])
    text = self._text("SELECT {columns} FROM {table} ORDER BY place", columns=columns)
    yield from map(self._rows, self._stream(text, batch_size))

  def names(self, batch_size: int = 100_000) -> Iterator[list[str]]:
    """All names in the order of their places, a batch at a time."""
    for rows in self._stream(self._text("SELECT name FROM {table} ORDER BY place"), batch_size):
      yield [name for (name,) in rows]

  def build_index(self, *, links: int = 16, effort: int = 64, memory_mb: int = 1024) -> None:
    """Makes the graph (HNSW) anew, of the items that are there; later ones are added as they come.

    Writers wait meanwhile, readers do not.

    Args:
      links: Of each item in a layer (pgvector's ``m``), 2 to 100.
      effort: Candidates while building (``ef_construction``), at least twice ``links``.
      memory_mb: What PostgreSQL may take for it; beyond, building becomes many times slower.

    Raises:
      StoreError: If PostgreSQL refuses.
    """
    options = f"m = {int(links)}, ef_construction = {int(effort)}"
    make = self._text(f"CREATE INDEX ON {{table}} USING hnsw (code {{operators}}) WITH ({options})")
    with self._server.connection("building the index") as connection:
      old = self._graphs(connection)
      connection.execute(f"SET LOCAL maintenance_work_mem = '{int(memory_mb)}MB'")
      connection.execute(make)
    sql = self._server.sql
    with self._server.connection("removing the old index") as connection:
      for name in old:
        connection.execute(
          sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(self._place.schema, name))
        )

  def has_index(self) -> bool:
    """Whether there is an approximate index."""
    if not self._indexed:
      with self._server.connection("looking for the index") as connection:
        self._indexed = bool(self._graphs(connection))
    return self._indexed

  def optimize(self) -> None:
    """Nothing: the server does it by itself."""

  def drop(self) -> None:
    """Removes the table and all that is in it."""
    with self._server.connection("removing the table") as connection:
      connection.execute(self._text("DROP TABLE {table}"))
      connection.execute(
        self._text("DELETE FROM {meta} WHERE table_name = $1"), [self._place.table]
      )

  def _text(self, text: str, **more: Any):
    """SQL with the names of this store's table, operator and so on filled in."""
    sql = self._server.sql
    vector = sql.Identifier(self._server.vector_schema)
    return sql.SQL(text).format(
      table=sql.Identifier(*self._place),
      meta=sql.Identifier(self._place.schema, META),
      distance=sql.SQL("OPERATOR({}.<~>)").format(vector),
      operators=sql.SQL("{}.bit_hamming_ops").format(vector),
      **more,
    )

  def _identifiers(self, columns: Sequence[str]):
    return self._server.sql.SQL(", ").join(map(self._server.sql.Identifier, columns))

  def _filter(self, word: str, conditions: Sequence[Condition], *, after: int):
    """``WHERE`` or ``AND`` and the conditions, whose `_values` come ``after`` so many others."""
    sql = self._server.sql
    if not conditions:
      return sql.SQL("")
    parts = []
    for column, operator, value in conditions:
      if value is None:
        test = "{} IS NULL" if operator == "=" else "{} IS NOT NULL"
      else:
        after += 1
        test = f"{{}} {'IS DISTINCT FROM' if operator == '!=' else operator} ${after}"
      parts.append(sql.SQL(test).format(sql.Identifier(column)))
    return sql.SQL(f" {word} ") + sql.SQL(" AND ").join(parts)

  def _found(self, connection, text, query, conditions) -> Found:
    values = [Bits(self.num_bits, query.tobytes()), *_values(conditions)]
    rows = connection.execute(text, values, binary=True).fetchall()
    return Found([name for name, _ in rows], np.array([d for _, d in rows], np.int32))

  def _rows(self, rows: Sequence[tuple]) -> Rows:
    num_bytes = -(-self.num_bits // 8)
    codes = np.frombuffer(b"".join(row[1] for row in rows), np.uint8)
    metadata = {column: [row[i] for row in rows] for i, column in enumerate(self.columns, start=2)}
    return Rows([row[0] for row in rows], codes.reshape(len(rows), num_bytes), metadata)

  def _stream(self, text, batch_size: int) -> Iterator[list[tuple]]:
    with (
      self._connection("reading") as connection,
      connection.cursor(name="udh_jax_rows", binary=True) as cursor,
    ):
      cursor.execute(text)
      while rows := cursor.fetchmany(batch_size):
        yield rows

  def _graphs(self, connection) -> list[str]:
    text = (
      "SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid "
      "JOIN pg_class t ON t.oid = x.indrelid JOIN pg_namespace n ON n.oid = t.relnamespace "
      "JOIN pg_am a ON a.oid = i.relam "
      "WHERE n.nspname = $1 AND t.relname = $2 AND a.amname = 'hnsw' AND x.indisvalid"
    )
    return [name for (name,) in connection.execute(text, list(self._place)).fetchall()]

  @contextlib.contextmanager
  def _connection(self, doing: str) -> Iterator[Any]:
    """A connection in a transaction that begins by seeing that the table is the one opened."""
    with self._server.connection(doing) as connection:
      self._require_unchanged(connection)
      yield connection

  def _require_unchanged(self, connection) -> None:
    row = _meta(connection, self._place)
    same = (
      row is not None
      and row[1] == self.num_bits
      and encoder_digest_of(json.loads(row[2])) == encoder_digest_of(self.about)
    )
    require(same, f"{self.location} was made anew for another encoder meanwhile; open it again.")


def _make(connection, server, place, num_bits, about, columns) -> None:
  """Makes what is missing of a table, if anything: else rights to write rows are enough."""
  if _meta(connection, place) is not None:
    return
  connection.execute("SELECT pg_advisory_xact_lock(hashtext('udh_jax'))")
  if _meta(connection, place) is not None:  # made while this waited
    return
  sql = server.sql
  meta = sql.Identifier(place.schema, META)
  # Each is looked for first: IF NOT EXISTS asks for the right to make it all the same.
  schemas = "SELECT 1 FROM pg_namespace WHERE nspname = $1"
  if connection.execute(schemas, [place.schema]).fetchone() is None:
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(place.schema)))
  if not _columns(connection, Place(place.schema, META)):
    connection.execute(
      sql.SQL(
        'CREATE TABLE {} (table_name text COLLATE "C" PRIMARY KEY, '
        "version int NOT NULL, num_bits int NOT NULL, about json NOT NULL, columns json NOT NULL)"
      ).format(meta)
    )
  more = [
    sql.SQL(f", {{}} {_TYPES[kind]}" + (' COLLATE "C"' if kind == "text" else "")).format(
      sql.Identifier(column)
    )
    for column, kind in columns.items()
  ]
  # A name or code is a few bytes: it stays in the row, and the graph reads it there.
  connection.execute(
    sql.SQL(
      "CREATE TABLE {} (place bigint GENERATED ALWAYS AS IDENTITY, "
      'name text COLLATE "C" PRIMARY KEY, code bit({}) NOT NULL{})'
    ).format(sql.Identifier(*place), sql.Literal(num_bits), sql.SQL("").join(more))
  )
  # A row that is there is of a table that was dropped by SQL.
  connection.execute(
    sql.SQL(
      "INSERT INTO {} (table_name, version, num_bits, about, columns) VALUES ($1, $2, $3, $4, $5) "
      "ON CONFLICT (table_name) DO UPDATE SET version = excluded.version, "
      "num_bits = excluded.num_bits, about = excluded.about, columns = excluded.columns"
    ).format(meta),
    [place.table, VERSION, num_bits, json.dumps(about), json.dumps(columns)],
  )


def _meta(connection, place: Place) -> tuple[int, int, str, str] | None:
  """What the table of stores says of one, if it and the store itself are there."""
  from psycopg import sql

  both = connection.execute(
    "SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename IN ($2, $3)",
    [place.schema, place.table, META],
  ).fetchone()[0]
  if both < 2:
    return None
  return connection.execute(
    sql.SQL(
      "SELECT version, num_bits, about::text, columns::text FROM {} WHERE table_name = $1"
    ).format(sql.Identifier(place.schema, META)),
    [place.table],
  ).fetchone()


def _columns(connection, place: Place) -> set[str]:
  """Names of a table's columns."""
  text = (
    "SELECT a.attname FROM pg_attribute a JOIN pg_class t ON t.oid = a.attrelid "
    "JOIN pg_namespace n ON n.oid = t.relnamespace "
    "WHERE n.nspname = $1 AND t.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped"
  )
  return {name for (name,) in connection.execute(text, list(place)).fetchall()}


def _values(conditions: Sequence[Condition]) -> list[Value]:
  return [condition.value for condition in conditions if condition.value is not None]


def _sendable(names: Iterable[str]) -> list[str]:
  """The names that PostgreSQL's text can hold; no others are in a table."""
  return [name for name in names if name_problem(name) is None]
