"""What every store of codes can do, whatever holds it."""

import abc
import collections
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from udh_jax.coding.binary import padding_is_set, require_packed
from udh_jax.errors import InputError, require, whole_number
from udh_jax.records import encoder_digest_of


class StoreError(InputError):
  """A store that cannot be reached or does not do as it should; the message is one line."""


class Rows(NamedTuple):
  """Items of a store.

  Attributes:
    names: Keys, m strings that differ.
    codes: Packed codes. uint8 array of shape ``[m, bytes]``.
    metadata: Values by column, m of each: strings, integers, numbers or truth values by the
      column's type, or None. To be written, it may lack columns of the store.
  """

  names: list[str]
  codes: np.ndarray
  metadata: dict[str, list[Any]]


class Found(NamedTuple):
  """What one query finds: nearest first, ties by place in the store, then by name.

  Attributes:
    names: m strings.
    distances: Hamming distances. int32 array of shape ``[m]``.
  """

  names: list[str]
  distances: np.ndarray


Value = str | int | float | bool | None


class Condition(NamedTuple):
  """One condition on metadata.

  Attributes:
    column: Its name.
    operator: One of `OPERATORS`.
    value: What to compare with; None only with "=" and "!=".
  """

  column: str
  operator: str
  value: Value


Where = Mapping[str, Value | tuple[str, Value]] | Sequence[Condition]


class Store(abc.ABC):
  """Packed codes with a name and metadata each, in a database.

  The order of ties is the same in all of them: by distance, then by place, then by name. An item
  gets its place when its name is first written and keeps it when its code is written again.

  Attributes:
    location: Where it is, without a password; for messages.
    num_bits: Length of the codes.
    about: JSON values by name. ``about["encoder"]`` holds the ``digest`` of the encoder that made
      the codes and its ``source``, as in a `HammingIndex`.
    columns: Type of each metadata column, one of `COLUMN_TYPES`.
    most_candidates: The largest ``effort`` of `nearest`; None where there is no limit.
  """

  location: str
  num_bits: int
  about: Mapping[str, Any]
  columns: Mapping[str, str]
  most_candidates: int | None = None

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  @abc.abstractmethod
  def count(self, where: Where | None = None) -> int:
    """Number of items, of those that ``where`` selects."""

  @abc.abstractmethod
  def load(self, batches: Iterable[Rows]) -> int:
    """Writes items in one transaction, all or none; those whose names are there are replaced.

    A column that a batch lacks keeps the values that it has, and is None of new items. Batches are
    taken one at a time, so that any number of items may be written; 8 bytes of each name are kept.

    Returns:
      How many items were written.

    Raises:
      InputError: If a name is given twice, or names, codes or metadata do not fit the store.
      StoreError: If the store cannot be reached or written to; nothing of the load is stored.
    """

  def upsert(
    self,
    names: str | Sequence[str],
    codes: np.ndarray,
    metadata: Mapping[str, Sequence[Value]] | None = None,
  ) -> int:
    """Writes items in one transaction; those whose names are there are replaced.

    Args:
      names: Keys, which differ.
      codes: Packed, one of each. uint8 array of shape ``[m, bytes]``.
      metadata: Values by column, one of each. A column that is left out keeps the values that it
        has, and is None of new items.

    Returns:
      How many items were written.

    Raises:
      InputError: See `load`.
      StoreError: See `load`.
    """
    columns = {column: _values_of(column, values) for column, values in (metadata or {}).items()}
    return self.load([Rows(names_of(names), codes, columns)])

  def delete(self, names: str | Iterable[str]) -> int:
    """Removes items; returns how many of the names were there."""
    return self._delete(names_of(names))

  @abc.abstractmethod
  def _delete(self, names: Sequence[str]) -> int:
    """Removes items."""

  def describe(self, about: Mapping[str, Any]) -> None:
    """Notes anew what is known of the codes, as where their encoder and their pictures are now.

    Args:
      about: In place of `about`; of the same encoder.

    Raises:
      InputError: If it names another encoder.
      StoreError: If the store cannot be reached or written to.
    """
    require_same_encoder(self, encoder_digest_of(about))
    self._describe(about)
    self.about = dict(about)

  @abc.abstractmethod
  def _describe(self, about: Mapping[str, Any]) -> None:
    """Writes what is known of the codes."""

  def nearest(
    self,
    queries: np.ndarray,
    k: int,
    *,
    where: Where | None = None,
    approximate: bool = False,
    effort: int = 100,
  ) -> list[Found]:
    """The k nearest items of each query, fewer where there are fewer.

    Args:
      queries: Packed codes. uint8 array of shape ``[q, bytes]``.
      k: Number of neighbours, 1 or more.
      where: Only items whose metadata are so; see `conditions_of`.
      approximate: Take candidates from the approximate index, which `build_index` makes. Their
        distances are counted again, so what is returned has its true distance and order; a nearer
        item may be missing.
      effort: Candidates that the approximate index gathers, at least k.

    Raises:
      InputError: If the width differs, an argument is out of range, or there is no approximate
        index.
    """
    queries = checked_codes(queries, self.num_bits)
    k, effort = whole_number("k", k), whole_number("effort", effort)
    require(k >= 1, f"k is {k}, expected 1 or more.")
    if max(k, effort) > _MANY:  # databases count what they are asked for in 32 bits
      most = max(1, self.count())
      k, effort = min(k, most), min(effort, most)
    conditions = conditions_of(where, self.columns)
    if not approximate:
      return self._nearest(queries, k, conditions)
    allowed = self.most_candidates
    limit = " or more." if allowed is None else f" to {allowed:,}; search exactly for more."
    require(
      k <= effort and (allowed is None or effort <= allowed),
      f"effort is {effort}, expected k = {k}{limit}",
    )
    require(
      self.has_index(),
      f"{self.location} has no approximate index; make it with build_index() (udh-jax encode "
      "--store ... --approximate), or search exactly.",
    )
    return self._nearest_by_index(queries, k, conditions, effort)

  def within(self, queries: np.ndarray, radius: int, *, where: Where | None = None) -> list[Found]:
    """All items within a Hamming radius of each query: exact; reads all codes."""
    queries = checked_codes(queries, self.num_bits)
    radius = whole_number("radius", radius)
    require(radius >= 0, f"radius is {radius}, expected 0 or more.")
    return self._within(queries, radius, conditions_of(where, self.columns))

  @abc.abstractmethod
  def _nearest(self, queries: np.ndarray, k: int, conditions: Sequence["Condition"]) -> list[Found]:
    """Exact search; reads all codes."""

  @abc.abstractmethod
  def _nearest_by_index(
    self, queries: np.ndarray, k: int, conditions: Sequence["Condition"], effort: int
  ) -> list[Found]:
    """Search among ``effort`` candidates; where they are fewer than k, the exact one answers."""

  @abc.abstractmethod
  def _within(
    self, queries: np.ndarray, radius: int, conditions: Sequence["Condition"]
  ) -> list[Found]:
    """All within the radius; reads all codes."""

  def get(self, names: str | Iterable[str]) -> Rows:
    """The items of these names that are there, in the order of the names."""
    return self._get(names_of(names))

  @abc.abstractmethod
  def _get(self, names: Sequence[str]) -> Rows:
    """The items of these names that are there."""

  @abc.abstractmethod
  def rows(self, batch_size: int = 10_000) -> Iterator[Rows]:
    """All items in the order of their places, a batch at a time, of one moment."""

  @abc.abstractmethod
  def names(self, batch_size: int = 100_000) -> Iterator[list[str]]:
    """All names in the order of their places, a batch at a time."""

  @abc.abstractmethod
  def build_index(self) -> None:
    """Makes the approximate index anew, of the items that are there."""

  @abc.abstractmethod
  def has_index(self) -> bool:
    """Whether there is an approximate index."""

  @abc.abstractmethod
  def optimize(self) -> None:
    """Puts in order what many writings leave behind, and takes new items into the indexes.

    Raises:
      StoreError: If the store cannot be reached, or another process writes; nothing is lost then.
    """

  @abc.abstractmethod
  def close(self) -> None:
    """Lets go of connections."""


# Of the file of each item, as it was when it was encoded: its size, and its time of change in ns.
FILE_COLUMNS = {"bytes": "integer", "changed": "integer"}
COLUMN_TYPES = {"text": str, "integer": int, "real": float, "boolean": bool}
RESERVED = ("name", "code", "place")
_MANY = 1 << 20  # neighbours; beyond it is looked how many items there are
LONGEST_NAME = 2000  # bytes; PostgreSQL's keys end at a third of a page
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,47}")
OPERATORS = ("=", "!=", "<", "<=", ">", ">=")


def require_columns(columns: Mapping[str, str]) -> None:
  """Refuses metadata columns that a store cannot hold.

  Raises:
    InputError: If a name is not a plain identifier or one of the store's own, or a type is unknown.
  """
  for name, kind in columns.items():
    require(
      bool(_COLUMN.fullmatch(name)) and name.lower() not in RESERVED,
      f"Metadata column {name!r} cannot be used; give a letter and then letters, digits or _, at "
      f"most 48, but none of {', '.join(RESERVED)}.",
    )
    require(
      kind in COLUMN_TYPES,
      f"Metadata column {name!r} has type {kind!r}; choose one of {', '.join(COLUMN_TYPES)}.",
    )
  lowered = [name.lower() for name in columns]
  require(
    len(set(lowered)) == len(lowered),
    f"Metadata columns {', '.join(columns)}: two differ in capitals only; rename one.",
  )


def names_of(names: str | Iterable[str]) -> list[str]:
  """Names as a list; a text is one name, and not its letters."""
  return [names] if isinstance(names, str) else list(names)


def _values_of(column: str, values: Iterable[Value]) -> list[Value]:
  """Values of a metadata column as a list; a text is none, and is not taken letter by letter."""
  require(
    not isinstance(values, str),
    lambda: f"Column {column!r} is the text {values!r}; give a list of values, one for each name.",
  )
  return list(values)


def name_problem(name: str) -> str | None:
  """Why a store cannot hold a name, or None where it can."""
  if not isinstance(name, str):
    return f"{name!r} is not a string"
  if "\0" in name:
    return f"{name!r} holds a NUL character"
  try:
    size = len(name.encode())
  except UnicodeEncodeError:
    return f"{name!r} holds bytes that are not UTF-8"
  if not 1 <= size <= LONGEST_NAME:
    return f"a name of {size} bytes ({name[:40]!r}), 1 to {LONGEST_NAME} are allowed"
  return None


def checked_rows(rows: Rows, num_bits: int, columns: Mapping[str, str]) -> Rows:
  """Items that fit a store.

  Args:
    rows: To be written.
    num_bits: Length of the store's codes.
    columns: The store's metadata columns.

  Returns:
    The same, with columns in the order of the store's; whole numbers of real columns are floats.

  Raises:
    InputError: If a name cannot be held, or codes or metadata do not fit.
  """
  names, codes = names_of(rows.names), checked_codes(rows.codes, num_bits)
  require(len(names) == len(codes), f"{len(codes)} codes and {len(names)} names; give one each.")
  for name in names:
    problem = name_problem(name)
    require(problem is None, f"A store cannot hold the name: {problem}; rename it.")
  unknown = sorted(rows.metadata.keys() - columns.keys())
  require(
    not unknown,
    f"The store has no column {', '.join(unknown)}; it has {', '.join(columns) or 'none'}.",
  )
  metadata = {}
  for column in (column for column in columns if column in rows.metadata):
    values = _values_of(column, rows.metadata[column])
    require(
      len(values) == len(names),
      f"Column {column!r} has {len(values)} values for {len(names)} names; give one each.",
    )
    metadata[column] = [checked_value(column, columns[column], value) for value in values]
  return Rows(names, codes, metadata)


class DistinctNames:
  """Sees that the names of a load differ, by 64 bits of each."""

  def __init__(self):
    """Starts with none."""
    self._hashes: list[np.ndarray] = []

  def add(self, names: Sequence[str]) -> None:
    """Notes a batch of names.

    Raises:
      InputError: If two of them are the same.
    """
    twice = next((name for name, count in collections.Counter(names).items() if count > 1), None)
    require(twice is None, f"The name {twice!r} is given twice at once; give each name once.")
    self._hashes.append(np.array([hash(name) for name in names], np.int64))

  def require(self) -> None:
    """Compares all batches.

    Raises:
      InputError: If two of them have a name in common.
    """
    hashes = np.sort(np.concatenate([np.zeros(0, np.int64), *self._hashes]))
    twice = int((hashes[1:] == hashes[:-1]).sum())
    require(twice == 0, f"{twice:,} names are given twice at once; give each name once.")


def checked_value(column: str, kind: str, value: Any) -> Value:
  """A value that fits a metadata column.

  Raises:
    InputError: If it is of another type, or text that cannot be held.
  """
  if value is None:
    return None
  if isinstance(value, np.generic):
    value = value.item()
  if kind == "real" and type(value) is int:
    value = float(value) if abs(value) < 2**1000 else math.inf
  fits = type(value) is COLUMN_TYPES[kind]
  fits &= kind != "integer" or (fits and -(2**63) <= value < 2**63)
  fits &= kind != "real" or (fits and math.isfinite(value))
  require(fits, f"Column {column!r} holds {kind} values; {value!r} is not one.")
  if kind == "text":
    valid = "\0" not in value and value.encode("utf-8", "replace").decode() == value
    require(valid, f"Column {column!r}: {value!r} holds a NUL character or no Unicode text.")
  return value


def checked_codes(codes: np.ndarray, num_bits: int) -> np.ndarray:
  """Packed codes of a store's width, as one block of memory.

  Raises:
    InputError: If they are not uint8 codes, of another width, or bits after the last are set.
  """
  codes = np.ascontiguousarray(codes)
  require_packed("store: codes", codes)
  num_bytes = -(-num_bits // 8)
  require(
    codes.shape[1] == num_bytes,
    f"The store holds codes of {num_bits} bits ({num_bytes} bytes), {codes.shape[1]} bytes were "
    "given; use the encoder that filled it, or make another store.",
  )
  require(
    not padding_is_set(codes, num_bits),
    f"Padding bits after bit {num_bits} are set; give codes from pack_codes.",
  )
  return codes


def conditions_of(where: Where | None, columns: Mapping[str, str]) -> list[Condition]:
  """Conditions, all of which must hold.

  Args:
    where: For each column the value that it must have, or an operator of `OPERATORS` and a value,
      such as ``{"label": "cat", "year": (">=", 2020)}``; or a list of `Condition`. None stands for
      what is not known: it equals None only. Texts are ordered by code point.
    columns: The store's.

  Raises:
    InputError: If there is no such column or operator, or the value does not fit.
  """
  require(
    not isinstance(where, str),
    f"where is the text {where!r}; give conditions such as {{'year': ('>=', 2020)}}, or what "
    "udh_jax.stores.parse_where([text], store.columns) makes of it.",
  )
  if isinstance(where, Mapping):
    pairs = [(c, v if isinstance(v, tuple) else ("=", v)) for c, v in where.items()]
    where = [Condition(column, *wanted) for column, wanted in pairs]
  found = []
  for column, operator, value in where or []:
    require(
      column in columns,
      f"The store has no column {column!r}; it has {', '.join(columns) or 'none'}.",
    )
    require(
      operator in OPERATORS,
      f"{operator!r} is not an operator; choose one of {' '.join(OPERATORS)}.",
    )
    require(
      value is not None or operator in ("=", "!="),
      f"Column {column!r}: None cannot be compared by {operator}; use = or !=.",
    )
    found.append(Condition(column, operator, checked_value(column, columns[column], value)))
  return found


def parse_where(texts: Sequence[str], columns: Mapping[str, str]) -> list[Condition]:
  """Conditions as the command line has them: ``label=cat``, ``year>=2020``, ``label!=``.

  Args:
    texts: A column, an operator of `OPERATORS` (or ``==`` for ``=``) and a value each; an empty
      value is None.
    columns: The store's, which give the value its type.

  Raises:
    InputError: If a text is not a condition, names no column, or its value does not fit.
  """
  conditions = []
  for text in texts:
    match = re.fullmatch(r"([^=!<>]+)(!=|<=|>=|==?|<(?!>)|>)(.*)", text, re.DOTALL)
    if match is None:
      raise InputError(
        f"{text!r} is not a condition; give a column, one of {' '.join(OPERATORS)} and a value, "
        "such as year>=2020."
      )
    column, operator, value = match[1].strip(), match[2], match[3].strip()
    operator = "=" if operator == "==" else operator
    require(
      column in columns,
      f"The store has no column {column!r}; it has {', '.join(columns) or 'none'}.",
    )
    conditions.append(Condition(column, operator, _parsed(column, columns[column], value)))
  return conditions_of(conditions, columns)


def _parsed(column: str, kind: str, text: str) -> Value:
  if text == "":
    return None
  try:
    if kind == "boolean":
      return {"true": True, "false": False}[text.lower()]
    return COLUMN_TYPES[kind](text)
  except (ValueError, KeyError):
    raise InputError(f"Column {column!r} holds {kind} values; {text!r} is not one.") from None


def require_same_encoder(store: Store, digest: str | None) -> None:
  """Refuses codes of another encoder than the one that filled a store.

  Args:
    store: To read or write.
    digest: Of the encoder at hand; None where that is not known.

  Raises:
    InputError: If the digests differ.
  """
  made = encoder_digest_of(store.about)
  require(
    made == digest,
    f"{store.location} holds codes of another encoder (digest {str(made)[:12]}, this one has "
    f"{str(digest)[:12]}); distances between the two mean nothing. Use that encoder, or another "
    "--table.",
  )


def require_version(location: str, version: Any, known: int) -> None:
  """Refuses a table whose schema another version of this program made.

  Raises:
    InputError: If the versions differ.
  """
  require(
    version == known,
    f"{location} was made by version {version} of the store's schema, this program knows {known}; "
    "use the version of udh_jax that made it.",
  )


def require_alike(
  store: Store, num_bits: int, about: Mapping[str, Any], columns: Mapping[str, str]
) -> None:
  """Refuses to write to a store that holds other codes, or lacks a column.

  Raises:
    InputError: If the number of bits or the encoder's digest differs, or a column is not there.
  """
  require(
    store.num_bits == num_bits,
    f"{store.location} holds codes of {store.num_bits} bits, {num_bits} were asked for; use the "
    "encoder that filled it, or another --table.",
  )
  made, given = encoder_digest_of(store.about), encoder_digest_of(about)
  require(
    made == given,
    f"{store.location} holds codes of another encoder (digest {str(made)[:12]}, "
    f"{str(given)[:12]} was given); use that one, or another --table.",
  )
  require(
    columns.items() <= store.columns.items(),
    f"{store.location} has the columns {store.columns}, {columns} were asked for; use those, or "
    "another --table.",
  )
