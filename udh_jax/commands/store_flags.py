"""Flags of the programs that keep codes in a store."""

import argparse
import contextlib
from typing import Any

from udh_jax.encoders.distributed.listing import Plan
from udh_jax.errors import require
from udh_jax.stores import Store, StoreError, open_store
from udh_jax.stores.locations import FORMS


def add_store_flags(parser: argparse.ArgumentParser, group: Any = None) -> None:
  """Adds ``--store``, to a group of the parser where one is given, ``--table`` and ``--schema``."""
  (group or parser).add_argument("--store", help=f"a database of codes: {FORMS}")
  parser.add_argument("--table", help="with --store: its table (codes)")
  parser.add_argument("--schema", help="with PostgreSQL: the schema of the table (public)")


def table_of(options: argparse.Namespace) -> dict[str, Any]:
  """Which table of the store is meant, for `open_store` and `create_store`.

  Raises:
    InputError: If a flag of stores is given without one; ``--approximate`` too, where there is it.
  """
  for name in ("table", "schema", "approximate"):
    given = getattr(options, name, None) not in (None, False)
    require(options.store or not given, f"--{name} is given without --store.")
  return {"table": options.table or "codes", "schema": options.schema}


def finish(store: Store, *, build_index: bool) -> None:
  """Ends the writing to a store.

  Args:
    store: To which was written.
    build_index: See that it has an approximate index, with all items in it.
  """
  if build_index or not store.has_index():  # it takes long where there is one
    with contextlib.suppress(StoreError):  # another process writes, and will do it
      store.optimize()
  if build_index and not store.has_index():
    store.build_index()


def about_of(plan: Plan) -> dict[str, Any]:
  """What a store says of codes that were made on a cluster."""
  return {"encoder": plan.encoder, "folder": plan.root}


def opened_store(options: argparse.Namespace) -> Store:
  """The store that is meant."""
  return open_store(options.store, **table_of(options))
