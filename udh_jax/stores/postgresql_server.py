"""Connections to a PostgreSQL server that has pgvector."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from udh_jax.errors import InputError, require
from udh_jax.extras import require_extra
from udh_jax.stores.interface import StoreError

EXTRA = "postgresql"
META = "udh_jax_stores"  # the table that says of each table of codes what it holds
PGVECTOR = (0, 7, 0)  # the first that searches bit strings
_BIT = 1560  # PostgreSQL's number of the type bit


class Bits(NamedTuple):
  """A packed code as a value of the type bit(n)."""

  num_bits: int
  data: bytes


class Place(NamedTuple):
  """Where a table is: its schema and its name."""

  schema: str
  table: str


class Server:
  """Connections to one database, with what had to be found out about it."""

  def __init__(self, url: str):
    self.psycopg = require_extra("psycopg", extra=EXTRA)
    pool = require_extra("psycopg_pool", extra=EXTRA)
    self.sql = require_extra("psycopg.sql", extra=EXTRA)
    conninfo = require_extra("psycopg.conninfo", extra=EXTRA)
    try:
      parts = conninfo.conninfo_to_dict(url)
    except self.psycopg.Error as error:
      reason = re.sub('".*"', "…", first_line(error))  # what is quoted may be of the password
      raise InputError(
        f"The store's URL cannot be read ({reason}); give one such as "
        "postgresql://user@host/database."
      ) from None
    self.shown = shown_as(parts)
    parts.setdefault("connect_timeout", 10)
    parts.setdefault("application_name", "udh_jax")
    whole = conninfo.make_conninfo(**parts)
    try:
      with self.psycopg.connect(whole) as connection:
        self.vector_schema, self.vector_version = self._ready(connection)
        self.schema = connection.execute("SELECT current_schema()").fetchone()[0]
    except self.psycopg.Error as error:
      raise StoreError(
        f"{self.shown} cannot be used ({first_line(error)}); check that the server runs and "
        "accepts your login."
      ) from error
    self._pool = pool.ConnectionPool(
      whole,
      min_size=0,
      max_size=8,
      timeout=10,
      configure=self._configure,
      check=pool.ConnectionPool.check_connection,
      reconnect_timeout=15,
      open=True,
    )

  def close(self) -> None:
    """Closes the connections."""
    if hasattr(self, "_pool"):
      self._pool.close()

  def place(self, schema: str | None, table: str) -> Place:
    """Where a table is or will be.

    Raises:
      InputError: If PostgreSQL would refuse or cut a name.
    """
    for kind, name in (("table", table), ("schema", schema)):
      if name is not None:
        valid = "\0" not in name and 1 <= len(name.encode("utf-8", "replace")) <= 63
        require(
          valid and name != META,
          f"{name!r} cannot name a {kind}; give 1 to 63 bytes without NUL, and not {META}.",
        )
    schema = schema or self.schema
    require(schema is not None, f"{self.shown} has no schema to use; name one with --schema.")
    return Place(schema, table)

  @contextlib.contextmanager
  def connection(self, doing: str) -> Iterator[Any]:
    """A connection in a transaction, which is rolled back where anything fails."""
    try:
      with self._pool.connection() as connection:
        yield connection
    except self.psycopg.Error as error:
      raise StoreError(f"{self.shown}: {doing} failed: {first_line(error)}.") from error

  def _ready(self, connection) -> tuple[str, tuple[int, ...]]:
    """Sees that pgvector is there, and returns the schema that it is in and its version."""
    found = (
      "SELECT n.nspname, e.extversion FROM pg_extension e "
      "JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector'"
    )
    row = connection.execute(found).fetchone()
    if row is None:
      try:
        with connection.transaction():
          connection.execute("SELECT pg_advisory_xact_lock(hashtext('udh_jax'))")
          connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
      except self.psycopg.Error as error:
        raise StoreError(
          f"{self.shown} has no pgvector ({first_line(error)}); install it on the server and let "
          "its owner run CREATE EXTENSION vector in this database."
        ) from error
      row = connection.execute(found).fetchone()
    schema, version = row
    return schema, require_version(self.shown, version)

  def _configure(self, connection) -> None:
    from psycopg.adapt import Dumper, Loader
    from psycopg.pq import Format

    # Parameters as PostgreSQL writes them, $1: a table's name may hold a per cent sign.
    connection.cursor_factory = self.psycopg.RawCursor
    connection.server_cursor_factory = self.psycopg.RawServerCursor

    class BitsDumper(Dumper):
      format, oid = Format.BINARY, _BIT

      def dump(self, obj):
        return obj.num_bits.to_bytes(4, "big") + obj.data

    class BitsLoader(Loader):
      format = Format.BINARY

      def load(self, data):
        return bytes(data[4:])

    connection.adapters.register_dumper(Bits, BitsDumper)
    connection.adapters.register_loader(_BIT, BitsLoader)


def require_version(shown: str, version: str) -> tuple[int, ...]:
  """The numbers of a version of pgvector; refuses one that cannot search bit strings.

  Raises:
    StoreError: If the version is too old.
  """
  numbers = tuple(int(part) for part in version.split(".")[:3])
  if numbers < PGVECTOR:
    raise StoreError(
      f"{shown} has pgvector {version}, {'.'.join(map(str, PGVECTOR))} or newer is needed; update "
      "it on the server and run ALTER EXTENSION vector UPDATE."
    )
  return numbers


def shown_as(parts: Mapping[str, Any]) -> str:
  """Where a server is, without a password."""
  user = f"{parts['user']}@" if parts.get("user") else ""
  port = f":{parts['port']}" if parts.get("port") else ""
  return f"postgresql://{user}{parts.get('host') or 'localhost'}{port}/{parts.get('dbname') or ''}"


def first_line(error: BaseException) -> str:
  """What an error says first, which is what went wrong; hints and positions follow."""
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  return lines[0].rstrip(".") if lines else type(error).__name__
