"""Codes from one place to another: udh-jax copy --from mine.index --store postgresql://host/db.

Copies the codes and names of an index, a store, or a folder that ``udh-jax encode --ray`` has
filled (``--from``) to an index (``--output``) or a store (``--store``). Stores keep what they have
and replace what has the same name; a folder's parts are written one by one, and those that are
there are left out when the command is run again.
"""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from udh_jax.commands.ending import guarded
from udh_jax.commands.store_flags import about_of, add_store_flags, finish, opened_store, table_of
from udh_jax.encoders.distributed.listing import read_plan
from udh_jax.encoders.distributed.parts import parts_to_index, parts_to_store
from udh_jax.encoders.folder import require_free
from udh_jax.errors import require
from udh_jax.files import require_writable
from udh_jax.printable import printable
from udh_jax.retrieval.index import HammingIndex
from udh_jax.stores import StoreError, create_store, index_to_store, open_store, store_to_index
from udh_jax.stores.locations import is_store
from udh_jax.stores.transfer import file_columns_of


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  parser = argparse.ArgumentParser("udh-jax copy", description=__doc__)
  parser.add_argument(
    "--from", dest="source", required=True, help="index file, folder of encode --ray, or store"
  )
  parser.add_argument("--from-table", help="with a store: the table to copy from (codes)")
  parser.add_argument("--from-schema", help="with PostgreSQL: the schema of that table (public)")
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument("--output", help="index file to write")
  add_store_flags(parser, where)
  parser.add_argument(
    "--approximate",
    action="store_true",
    help="with --store: build or refresh its approximate index afterwards",
  )
  options = parser.parse_args(arguments)

  def run():
    table_of(options)
    if options.output:
      require_writable(options.output)
      require_free(pathlib.Path(options.output))
    from_store = is_store(options.source)
    for name in ("table", "schema"):
      given = getattr(options, f"from_{name}")
      require(from_store or given is None, f"--from-{name} is given, but --from is not a store.")
    if from_store:
      place, copied = _copy_store(options)
    elif os.path.isfile(options.source):
      place, copied = _copy_index(options)
    else:
      place, copied = _copy_parts(options)
    print(printable(f"{place}: {copied:,} items"), flush=True)

  guarded(run)


@contextlib.contextmanager
def _target(options, num_bits: int, about: dict[str, Any], columns: dict[str, str] | None = None):
  table = table_of(options)
  made = create_store(options.store, num_bits=num_bits, about=about, columns=columns, **table)
  with contextlib.closing(made) as store:
    yield store
    finish(store, build_index=options.approximate)


def _copy_index(options) -> tuple[str, int]:
  """Copies an index; returns where to, without a password, and how many items."""
  index = HammingIndex.load(options.source)
  if options.output:
    index.save(options.output)
    return options.output, len(index)
  columns = {} if _is_there(options) else file_columns_of(index)
  with _target(options, index.num_bits, _about(index.about), columns) as store:
    return store.location, index_to_store(index, store)


def _is_there(options) -> bool:
  """Whether there is the table to write to, which may lack columns that one made now would have."""
  try:
    opened_store(options).close()
  except StoreError:
    return False
  return True


def _copy_store(options) -> tuple[str, int]:
  table = {"table": options.from_table or "codes", "schema": options.from_schema}
  with contextlib.closing(open_store(options.source, **table)) as source:
    if options.output:
      index = store_to_index(source)
      index.save(options.output)
      return options.output, len(index)
    with _target(options, source.num_bits, dict(source.about), dict(source.columns)) as store:
      return store.location, store.load(source.rows())


def _copy_parts(options) -> tuple[str, int]:
  require(
    "://" in options.source or os.path.isdir(options.source),
    f"{options.source} is neither a file nor a folder; give an index, a folder that encode --ray "
    "has written, or a store.",
  )
  plan = read_plan(options.source)
  if options.output:
    return options.output, parts_to_index(options.source, options.output)
  with _target(options, plan.num_bits, about_of(plan)) as store:
    return store.location, parts_to_store(options.source, store)


def _about(about: dict[str, Any]) -> dict[str, Any]:
  """What a store says of an index's codes: who made them of what, not how its file is kept."""
  return {name: about[name] for name in ("encoder", "folder") if name in about}
