"""Stores by what the command line calls them."""

from collections.abc import Mapping
from typing import Any

from udh_jax.errors import InputError, require
from udh_jax.stores.embedded import embedded_server
from udh_jax.stores.interface import Store
from udh_jax.stores.lance import create_lance, open_lance
from udh_jax.stores.postgresql import create_postgresql, open_postgresql

FORMS = (
  "postgresql://user@host/database (a server), postgresql or postgresql:FOLDER (a server "
  "that is started for you), lancedb:FOLDER, lancedb:s3://bucket/path"
)


KINDS = ("postgresql", "postgres", "lancedb")


def is_store(location: str) -> bool:
  """Whether a text is a store's location and not a path."""
  return location.partition(":")[0] in KINDS


def open_store(location: str, *, table: str = "codes", schema: str | None = None) -> Store:
  """Opens a table of codes.

  Args:
    location: One of

      - ``postgresql://user@host/database``: a PostgreSQL server with pgvector;
      - ``postgresql:FOLDER``: the embedded server with its data in that folder, started where it
        does not run; ``postgresql`` alone takes `udh_jax.stores.embedded.default_folder`;
      - ``lancedb:FOLDER`` or ``lancedb:s3://bucket/path`` (``gs://``, ``az://``): LanceDB's files.
    table: Its name.
    schema: Where PostgreSQL has it; None is the connection's own (``public``).

  Raises:
    InputError: If the location cannot be understood, or an extra is not installed.
    StoreError: If it cannot be reached or holds no such table.
  """
  kind, place = _parsed(location, schema)
  if kind == "lancedb":
    return open_lance(place, table=table)
  return open_postgresql(place, table=table, schema=schema)


def create_store(
  location: str,
  *,
  num_bits: int,
  about: Mapping[str, Any] | None = None,
  columns: Mapping[str, str] | None = None,
  table: str = "codes",
  schema: str | None = None,
) -> Store:
  """Makes a table of codes; where it is there and holds the same kind of codes, opens it.

  Args:
    location: See `open_store`.
    num_bits: Length of the codes.
    about: JSON values by name, such as ``{"encoder": {"digest": ..., "source": ...}}``; the digest
      is compared where the table is there.
    columns: Metadata columns by name: "text", "integer", "real" or "boolean".
    table: Its name.
    schema: Where PostgreSQL has it, made where it is missing.

  Raises:
    InputError: If an argument is out of range, the table is there with codes of another length or
      encoder or lacks a column, or an extra is not installed.
    StoreError: If the store cannot be reached.
  """
  kind, place = _parsed(location, schema)
  options: dict[str, Any] = {"num_bits": num_bits, "about": about, "columns": columns}
  if kind == "lancedb":
    return create_lance(place, table=table, **options)
  return create_postgresql(place, table=table, schema=schema, **options)


def _parsed(location: str, schema: str | None) -> tuple[str, str]:
  """Kind of a store, and its URL."""
  kind, colon, rest = location.partition(":")
  if kind in ("postgresql", "postgres"):
    if rest.startswith("//"):
      return "postgresql", location
    require(not colon or rest, f"{location!r} names no folder; give {FORMS}.")
    return "postgresql", embedded_server(rest or None)
  if kind == "lancedb":
    require(rest, f"{location!r} names no folder; give {FORMS}.")
    require(schema is None, "LanceDB has no schemas; name the --table alone.")
    return "lancedb", rest
  shown = location.rpartition("@")[2].partition("?")[0]  # the others may hold a password
  raise InputError(f"{shown!r} is not a store; give one of {FORMS}.")
