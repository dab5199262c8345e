"""Codes in a table of LanceDB: files in a folder or an object store, without a server."""

import contextlib
import datetime
import functools
import itertools
import json
import pathlib
import random
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from udh_jax.errors import InputError, require, whole_number
from udh_jax.extras import require_extra
from udh_jax.records import ANYTHING, OBJECT, require_fields, whole
from udh_jax.stores.interface import (
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

EXTRA = "lancedb"
VERSION = 1
# Key of the table's description in its schema; in that of the field `_NOTED` of a newer ``about``,
# as LanceDB replaces what is said of fields alone.
_ABOUT = b"udh_jax"
_NOTED = "place"
_KEY = b"lance-schema:unenforced-primary-key:position"
_AT_ONCE = 5000  # names in one condition
_SLACK = 64  # candidates beyond the k-th that usually settle the order of ties
_ATTEMPTS = 5  # to build the index where another process writes
_PROBES = 32  # cells of the approximate index that are read


def create_lance(
  url: str,
  *,
  num_bits: int,
  about: Mapping[str, Any] | None = None,
  columns: Mapping[str, str] | None = None,
  table: str = "codes",
) -> "LanceStore":
  """Makes a table of codes; where it is there and holds the same kind of codes, opens it.

  Args:
    url: A folder, made where it is missing, or an object store's URL, such as ``s3://bucket/path``,
      whose credentials come from the environment as LanceDB reads it (AWS_ACCESS_KEY_ID and so on).
    num_bits: Length of the codes.
    about: JSON values by name; ``about["encoder"]["digest"]`` is compared where the table is there.
    columns: Metadata columns: a type of `COLUMN_TYPES` by name.
    table: Its name: letters, digits, ``_``, ``-`` and ``.``.

  Raises:
    InputError: If an argument is out of range, or the table is there with other codes or columns.
    StoreError: If the place cannot be reached or written to.
  """
  columns, about = dict(columns or {}), dict(about or {})
  require_columns(columns)
  num_bits = whole_number("num_bits", num_bits)
  require(num_bits >= 1, f"num_bits is {num_bits}, expected 1 or more.")
  database = _connect(url, table)
  described = {"version": VERSION, "num_bits": num_bits, "about": about, "columns": columns}
  with _errors(url, "making the table"):
    if not _is_there(database, table):
      try:
        database.create_table(table, schema=_schema(num_bits, columns, described))
      except Exception:
        if not _is_there(database, table):  # else another process was faster
          raise
  store = LanceStore(url, database, table)
  require_alike(store, num_bits, about, columns)
  return store


def open_lance(url: str, *, table: str = "codes") -> "LanceStore":
  """Opens a table that `create_lance` made.

  Args:
    url: As there.
    table: Its name.

  Raises:
    StoreError: If the place cannot be reached, there is no such table, or this LanceDB counts
      distances wrongly.
  """
  if "://" not in url and not pathlib.Path(url).is_dir():  # connecting would make it
    raise _no_table(url, table)
  return LanceStore(url, _connect(url, table), table)


def _no_table(url: str, table: str) -> StoreError:
  return StoreError(
    f"lancedb:{url} has no table of codes {table!r}; make one with udh-jax encode --store, or name "
    "another with --table."
  )


class LanceStore(Store):
  """A `Store` in a LanceDB table: ``name``, ``code``, ``place`` and a column for each other.

  Several machines may write at once, each call being one version of the table: LanceDB lets one
  of two writers that meet try again. Each call sees the newest version. ``place`` is the time of
  the first writing in nanoseconds, so ties are ordered across machines as their clocks are.
  """

  def __init__(self, url: str, database: Any, table: str):
    """Reads what a table holds; see `open_lance`."""
    self.location = f"lancedb:{url} table {table}"
    with _errors(url, "opening the table"):
      try:
        self._table = database.open_table(table)
      except ValueError:
        raise _no_table(url, table) from None
      schema = self._table.schema
    described = (schema.metadata or {}).get(_ABOUT)
    if described is None:
      raise InputError(f"{self.location} is not a table of udh_jax; name another with --table.")
    described = require_fields(
      self.location,
      json.loads(described),
      {"version": ANYTHING, "num_bits": whole(1, 1 << 20), "about": OBJECT, "columns": OBJECT},
    )
    require_version(self.location, described["version"], VERSION)
    self.num_bits: int = described["num_bits"]
    noted = (schema.field(_NOTED).metadata or {}).get(_ABOUT)
    self.about: dict[str, Any] = described["about"] if noted is None else json.loads(noted)
    self.columns: dict[str, str] = described["columns"]
    require_true_distances(-(-self.num_bits // 8))

  def close(self) -> None:
    """Nothing is held open."""

  def count(self, where: Where | None = None) -> int:
    """Number of items, of those that ``where`` selects."""
    with self._doing("counting"):
      return self._table.count_rows(_filter(conditions_of(where, self.columns)))

  def load(self, batches: Iterable[Rows]) -> int:
    """Writes items in one version of the table: all or, where anything fails, none."""
    pa = require_extra("pyarrow", extra=EXTRA)
    failures: list[BaseException] = []
    distinct = DistinctNames()
    written = 0

    def converted(start: int, anything: bool):
      nonlocal written
      try:
        for batch in batches:
          rows = checked_rows(batch, self.num_bits, self.columns)
          places = range(start + written, start + written + len(rows.names))
          kept: dict[str, Sequence[Value]] = {"place": places} | {
            column: [None] * len(rows.names)
            for column in self.columns
            if column not in rows.metadata
          }
          if anything:
            kept = self._kept(rows.names, kept)
          written += len(rows.names)
          distinct.add(rows.names)
          yield self._as_arrow(rows, kept)
        distinct.require()
      except BaseException as error:  # Arrow would wrap it in its own
        failures.append(error)
        raise

    with self._doing("writing"):
      try:
        stream = converted(time.time_ns(), self._table.count_rows() > 0)
        first = next(stream, None)
        if first is None:
          return 0
        reader = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], stream))
        merge = self._table.merge_insert("name").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(reader)
      except Exception:
        if failures:
          raise failures[0] from None
        raise
    return written

  def _delete(self, names: Sequence[str]) -> int:
    """Removes items, 5,000 in a version; returns how many of the names were there."""
    removed = 0
    with self._doing("removing"):
      for some in _in_parts(names):
        removed += self._table.delete(_among(some)).num_deleted_rows
    return removed

  def _describe(self, about: Mapping[str, Any]) -> None:
    with self._doing("describing the table"):
      metadata = {_ABOUT.decode(): json.dumps(about)}
      self._table.update_field_metadata({"path": _NOTED, "metadata": metadata})

  def _nearest(self, queries: np.ndarray, k: int, conditions: Sequence[Condition]) -> list[Found]:
    selected = _filter(conditions)
    with self._doing("searching"):
      return [self._exact(query, k, selected) for query in queries]

  def _nearest_by_index(
    self, queries: np.ndarray, k: int, conditions: Sequence[Condition], effort: int
  ) -> list[Found]:
    """Reads the cells around a query; what came after `build_index` is searched exactly."""
    found, selected = [], _filter(conditions)
    with self._doing("searching"):
      for query in queries:
        search = self._search(query, selected).nprobes(_PROBES).ef(effort).limit(effort)
        some = self._ordered(query, search)
        if len(some.names) < k:
          some = self._exact(query, k, selected)
        found.append(Found(some.names[:k], some.distances[:k]))
    return found

  def _within(
    self, queries: np.ndarray, radius: int, conditions: Sequence[Condition]
  ) -> list[Found]:
    selected = _filter(conditions)
    with self._doing("searching"):
      return [self._within_one(query, radius, selected) for query in queries]

  def _get(self, names: Sequence[str]) -> Rows:
    """The items of these names that are there, in the order of the names."""
    by_name = {}
    with self._doing("reading"):
      for some in _in_parts(names):
        query = self._table.search().where(_among(some)).limit(len(some))
        for rows in map(self._as_rows, query.select(self._fields()).to_batches()):
          values = zip(*rows.metadata.values(), strict=True) if rows.metadata else None
          for name, code in zip(rows.names, rows.codes, strict=True):
            by_name[name] = (code, next(values) if values else ())
    kept = [name for name in dict.fromkeys(names) if name in by_name]
    codes = np.array([by_name[name][0] for name in kept], np.uint8)
    metadata = {
      column: [by_name[name][1][i] for name in kept] for i, column in enumerate(self.columns)
    }
    return Rows(kept, codes.reshape(len(kept), -(-self.num_bits // 8)), metadata)

  def rows(self, batch_size: int = 10_000) -> Iterator[Rows]:
    """All items in the order of their places, a batch at a time, of one moment."""
    yield from map(self._as_rows, self._stream(self._fields(), batch_size))

  def names(self, batch_size: int = 100_000) -> Iterator[list[str]]:
    """All names in the order of their places, a batch at a time."""
    for batch in self._stream(["name", "place"], batch_size):
      yield batch.column("name").to_pylist()

  def build_index(self, *, links: int = 16, effort: int = 100) -> None:
    """Makes the approximate index anew: cells around centres, a graph (HNSW) in each.

    Args:
      links: Of each item in a layer of a graph.
      effort: Candidates while building.
    """
    index = require_extra("lancedb.index", extra=EXTRA)
    config = index.IvfHnswFlat(distance_type="hamming", m=links, ef_construction=effort)
    for attempt in range(1, _ATTEMPTS + 1):
      try:
        with self._doing("building the index"):
          self._table.create_index("code", config=config, replace=True, name="code_idx")
        return
      except StoreError as error:  # of two who build at once, one is to do it again
        if attempt == _ATTEMPTS or "conflict" not in str(error).lower():
          raise
      time.sleep(random.uniform(0, attempt))
      self._table.checkout_latest()

  def has_index(self) -> bool:
    """Whether there is an approximate index."""
    with self._doing("looking for the index"):
      return any("code" in index.columns for index in self._table.list_indices())

  def optimize(self, *, keep: datetime.timedelta = datetime.timedelta(days=7)) -> None:
    """Joins the small files of many writings, indexes what is new, and removes old versions.

    At the first call it makes an index of the names, by which writing and `get` find them. LanceDB
    cannot add to an approximate index, nor join files under it: where items are not in it, it is
    taken away and made anew at the end, as `build_index` makes it by default.

    Args:
      keep: Versions younger than this stay, for readers that are at them.

    Raises:
      StoreError: If the place cannot be reached, or another process writes; nothing is lost then.
    """
    index = require_extra("lancedb.index", extra=EXTRA)
    with self._doing("optimizing"):
      made = self._table.list_indices()
      approximate = [one.name for one in made if "code" in one.columns]
      if approximate and not self._table.index_stats(approximate[0]).num_unindexed_rows:
        return
      for name in approximate:
        self._table.drop_index(name)
      try:
        if not any("name" in one.columns for one in made):
          self._table.create_index("name", config=index.BTree(), name="name_idx")
        self._table.optimize(cleanup_older_than=keep)
      finally:
        if approximate:
          self.build_index()

  def _doing(self, doing: str):
    return _errors(self.location.removeprefix("lancedb:"), doing)

  def _fields(self) -> list[str]:
    return ["name", "code", "place", *self.columns]

  def _kept(
    self, names: Sequence[str], new: Mapping[str, Sequence[Value]]
  ) -> dict[str, Sequence[Value]]:
    """Values of the columns of ``new``, by name of the column: of items that are there, theirs."""
    found: dict[str, tuple[Value, ...]] = {}
    for some in _in_parts(names):
      query = self._table.search().where(_among(some)).select(["name", *new])
      for batch in query.limit(len(some)).to_batches():
        columns = [batch.column(column).to_pylist() for column in new]
        values = zip(*columns, strict=True)
        found.update(zip(batch.column("name").to_pylist(), values, strict=True))
    rows = [found.get(n, r) for n, r in zip(names, zip(*new.values(), strict=True), strict=True)]
    return {column: [row[i] for row in rows] for i, column in enumerate(new)}

  def _stream(self, fields: list[str], batch_size: int):
    ordering = require_extra("lancedb.query", extra=EXTRA).ColumnOrdering
    order = [ordering(column_name="place"), ordering(column_name="name")]
    with self._doing("reading"):
      yield from self._table.search().select(fields).order_by(order).to_batches(batch_size)

  def _search(self, query: np.ndarray, selected: str | None):
    search = self._table.search(query.tolist(), vector_column_name="code")
    search = search.distance_type("hamming").select(["name", "code", "place", "_distance"])
    return search.where(selected) if selected else search

  def _exact(self, query: np.ndarray, k: int, selected: str | None) -> Found:
    wanted = 2 * k + _SLACK
    some = self._ordered(query, self._search(query, selected).bypass_vector_index().limit(wanted))
    complete = len(some.names) < wanted or some.distances[k - 1] < some.distances[-1]
    if not complete:  # among those that were left out some may be as near as the k-th
      some = self._within_one(query, int(some.distances[k - 1]), selected)
    return Found(some.names[:k], some.distances[:k])

  def _within_one(self, query: np.ndarray, radius: int, selected: str | None) -> Found:
    search = self._search(query, selected).bypass_vector_index()
    limit = max(1, self._table.count_rows(selected))
    return self._ordered(query, search.distance_range(upper_bound=radius + 1).limit(limit))

  def _ordered(self, query: np.ndarray, search: Any) -> Found:
    """What a search found, counted again and ordered."""
    table = search.to_arrow()
    codes = _codes_of(table.column("code").combine_chunks(), -(-self.num_bits // 8))
    distances = np.bitwise_count(codes ^ query).sum(axis=1, dtype=np.int32)
    given = table.column("_distance").to_numpy()
    if (distances != given).any():
      raise StoreError(f"{self.location}: {_WRONG}")
    names, places = table.column("name").to_pylist(), table.column("place").to_numpy()
    order = sorted(range(len(names)), key=lambda i: (distances[i], places[i], names[i]))
    return Found([names[i] for i in order], distances[order])

  def _as_arrow(self, rows: Rows, kept: Mapping[str, Sequence[Value]]):
    import pyarrow as pa

    schema = _schema(self.num_bits, self.columns)
    width = -(-self.num_bits // 8)
    codes = pa.FixedSizeListArray.from_arrays(pa.array(rows.codes.reshape(-1)), width)
    values = {**rows.metadata, **kept}
    more = [pa.array(values[c], schema.field(c).type) for c in ("place", *self.columns)]
    columns = [pa.array(rows.names, pa.string()), codes, *more]
    table = pa.table(columns, names=schema.names).cast(schema)
    return table.combine_chunks().to_batches()[0] if len(rows.names) else _empty(schema)

  def _as_rows(self, batch: Any) -> Rows:
    metadata = {column: batch.column(column).to_pylist() for column in self.columns}
    codes = _codes_of(batch.column("code"), -(-self.num_bits // 8))
    return Rows(batch.column("name").to_pylist(), codes, metadata)


_WRONG = (
  "this version of LanceDB counts Hamming distances wrongly (some counted bytes, not bits); run "
  'pip install --upgrade "udh_jax[lancedb]".'
)


@functools.cache
def require_true_distances(num_bytes: int) -> None:
  """Sees by a small table in memory that LanceDB counts the bits that differ.

  Args:
    num_bytes: Of a code.

  Raises:
    StoreError: If it does not.
  """
  pa = require_extra("pyarrow", extra=EXTRA)
  lancedb = require_extra("lancedb", extra=EXTRA)
  codes = np.random.default_rng(0).integers(0, 256, (32, num_bytes), dtype=np.uint8)
  array = pa.FixedSizeListArray.from_arrays(pa.array(codes.reshape(-1)), num_bytes)
  table = lancedb.connect("memory://").create_table("codes", pa.table({"code": array}))
  search = table.search(codes[0].tolist(), vector_column_name="code").distance_type("hamming")
  found = search.select(["_distance"]).limit(32).to_arrow().column("_distance").to_numpy()
  true = np.bitwise_count(codes ^ codes[0]).sum(axis=1)
  if not np.array_equal(np.sort(found), np.sort(true)):
    raise StoreError(f"lancedb {lancedb.__version__}: {_WRONG}")


def _connect(url: str, table: str) -> Any:
  require(
    re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", table) is not None,
    f"{table!r} cannot name a table of LanceDB; give letters, digits, _, - and . only.",
  )
  lancedb = require_extra("lancedb", extra=EXTRA)
  with _errors(url, "connecting"):
    # Each call looks for a newer version, which another machine may have written.
    return lancedb.connect(url, read_consistency_interval=datetime.timedelta(0))


def _is_there(database: Any, table: str) -> bool:
  try:
    database.open_table(table)
  except ValueError:
    return False
  return True


@contextlib.contextmanager
def _errors(url: str, doing: str) -> Iterator[None]:
  """Turns LanceDB's errors, which are of many types, into one line."""
  try:
    yield
  except InputError:
    raise
  except (OSError, RuntimeError, ValueError) as error:
    text = " ".join(str(error).split())[:300]
    raise StoreError(f"lancedb:{url}: {doing} failed ({text}).") from error


def _schema(num_bits: int, columns: Mapping[str, str], described: Mapping | None = None) -> Any:
  pa = require_extra("pyarrow", extra=EXTRA)
  types = {"text": pa.string(), "integer": pa.int64(), "real": pa.float64(), "boolean": pa.bool_()}
  code = pa.list_(pa.field("item", pa.uint8(), nullable=False), -(-num_bits // 8))
  fields = [
    # A key, so that of writers at once not each adds the same name.
    pa.field("name", pa.string(), nullable=False, metadata={_KEY: b"1"}),
    pa.field("code", code, nullable=False),
    pa.field("place", pa.int64(), nullable=False),
    *(pa.field(name, types[kind]) for name, kind in columns.items()),
  ]
  metadata = None if described is None else {_ABOUT: json.dumps(described).encode()}
  return pa.schema(fields, metadata=metadata)


def _empty(schema: Any) -> Any:
  import pyarrow as pa

  return pa.RecordBatch.from_arrays([pa.array([], f.type) for f in schema], schema=schema)


def _codes_of(array: Any, num_bytes: int) -> np.ndarray:
  return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, num_bytes)


def _in_parts(names: Sequence[str]) -> Iterator[list[str]]:
  """The names that a store can hold, some at a time."""
  held = [name for name in names if name_problem(name) is None]
  for start in range(0, len(held), _AT_ONCE):
    yield held[start : start + _AT_ONCE]


def _among(names: Sequence[str]) -> str:
  return f"name IN ({', '.join(map(_literal, names))})"


def _literal(value: Value) -> str:
  if isinstance(value, str):
    return "'" + value.replace("'", "''") + "'"
  if value == -(2**63) and isinstance(value, int):
    return f"({value + 1} - 1)"  # what stands after the sign would be no whole number of 64 bits
  return str(value).lower() if isinstance(value, bool) else repr(value)


def _filter(conditions: Sequence[Condition]) -> str | None:
  """The conditions in the SQL that LanceDB reads; None where there is none."""
  parts = []
  for column, operator, value in conditions:
    quoted = f"`{column}`"  # else its capitals would be lost
    if value is None:
      parts.append(f"{quoted} IS {'' if operator == '=' else 'NOT '}NULL")
    elif operator == "!=":
      parts.append(f"({quoted} != {_literal(value)} OR {quoted} IS NULL)")
    else:
      parts.append(f"{quoted} {operator} {_literal(value)}")
  return " AND ".join(parts) or None
