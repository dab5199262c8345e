"""Columns of a table in a file: CSV, TSV, JSON lines or Parquet."""

import csv
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from udh_jax.errors import InputError, require
from udh_jax.extras import require_extra

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def read_table(path: str | pathlib.Path, columns: Sequence[str]) -> dict[str, list[Any]]:
  """Reads some columns of a table.

  The ending says what the file is: .csv (commas, quotes by RFC 4180), .tsv (tabs, no quotes),
  .jsonl or .ndjson (an object a line) or .parquet. CSV and TSV begin with a line of names. Text is
  UTF-8, with or without a byte order mark.

  Args:
    path: The file.
    columns: Names of the columns that are wanted.

  Returns:
    By column, a value for each row: a string, or a list of strings where the file has lists; what
    is missing, or NaN, is "".

  Raises:
    InputError: If the file cannot be read, is none of these, or lacks a column; names the line.
  """
  file = pathlib.Path(path).expanduser()
  require(file.is_file(), f"{file} is not a file; give a table ({', '.join(ENDINGS)}).")
  ending = file.suffix.lower()
  require(
    ending in _READERS,
    f"{file} ends in {file.suffix!r}; tables are read from {', '.join(ENDINGS)}: convert it.",
  )
  wanted = list(dict.fromkeys(columns))
  try:
    rows = _READERS[ending](file, wanted)
  except UnicodeDecodeError as error:
    raise InputError(f"{file} is not UTF-8 ({error.reason} at byte {error.start}).") from error
  except OSError as error:
    raise InputError(f"{file} cannot be read ({error.strerror or error}).") from error
  return {name: [_plain(value) for value in rows[name]] for name in wanted}


def _plain(value: Any) -> str | list[str]:
  if isinstance(value, list | tuple):
    return [_text(item) for item in value if not _is_missing(item)]
  return "" if _is_missing(value) else _text(value)


def _is_missing(value: Any) -> bool:
  return value is None or (isinstance(value, float) and math.isnan(value))


def _text(value: Any) -> str:
  """As in a CSV file: pandas keeps whole numbers as floats where some are missing."""
  return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _require_columns(file, wanted, there) -> None:
  missing = [name for name in wanted if name not in there]
  require(
    not missing,
    lambda: (
      f"{file} has no column {', '.join(map(repr, missing))}; it has "
      f"{', '.join(map(repr, there))}: set the data fields that name columns."
    ),
  )


def _read_separated(file, wanted, **options):
  with open(file, encoding="utf-8-sig", newline="") as text:
    lines = csv.reader(text, **options)
    try:
      header = next(lines, [])
      _require_columns(file, wanted, header)
      places = {name: header.index(name) for name in wanted}
      rows = {name: [] for name in wanted}
      for cells in lines:
        if not cells:  # an empty line
          continue
        require(
          len(cells) == len(header),
          f"{file} line {lines.line_num} has {len(cells)} cells, but the first line names "
          f"{len(header)} columns.",
        )
        for name, place in places.items():
          rows[name].append(cells[place])
    except csv.Error as error:
      raise InputError(f"{file} line {lines.line_num} is no line of a table ({error}).") from error
  return rows


def _read_csv(file, wanted):
  return _read_separated(file, wanted, strict=True)


def _read_tsv(file, wanted):
  return _read_separated(file, wanted, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_json_lines(file, wanted):
  rows = {name: [] for name in wanted}
  there: dict[str, None] = {}
  with open(file, encoding="utf-8-sig") as text:
    for number, line in enumerate(text, 1):
      if not line.strip():
        continue
      try:
        record = json.loads(line)
      except ValueError as error:
        raise InputError(f"{file} line {number} is no JSON ({error}).") from error
      require(isinstance(record, dict), f"{file} line {number} is no JSON object.")
      there.update(dict.fromkeys(record))
      for name in wanted:
        rows[name].append(record.get(name))
  _require_columns(file, wanted, list(there))
  return rows


def _read_parquet(file, wanted):
  parquet = require_extra("pyarrow.parquet", extra="parquet")
  arrow = require_extra("pyarrow", extra="parquet")
  try:
    _require_columns(file, wanted, parquet.read_schema(file).names)
    return parquet.read_table(file, columns=wanted).to_pydict()
  except arrow.ArrowException as error:
    raise InputError(f"{file} is no Parquet file that can be read ({error}).") from error


_READERS: dict[str, Callable[[pathlib.Path, Sequence[str]], dict[str, list[Any]]]] = {
  ".csv": _read_csv,
  ".tsv": _read_tsv,
  ".jsonl": _read_json_lines,
  ".ndjson": _read_json_lines,
  ".parquet": _read_parquet,
}
