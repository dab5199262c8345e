"""Who is query, database and train: index arrays made from a seed alone.

Everything here is a pure function of its arguments, so that each host and each restart agrees.
Random orders come from the raw stream of a counter-based generator and a stable sort, because NumPy
keeps that stream fixed between versions, while it does not promise so for `Generator.permutation`.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from udh_jax.errors import require
from udh_jax.files import write_text

# The word after the seed in each draw: no two purposes share a stream.
_QUERIES, _VALIDATION, _TRAIN, EPOCH, SAMPLE, CENTRES, TIES, PAIRS = 1, 2, 3, 4, 5, 6, 7, 8
_FEWEST_HELD_OUT, _MOST_HELD_OUT = 100, 1000
TRAIN, DATABASE, VALIDATION, QUERY = range(4)  # the parts that a data set itself may name


class Splits(NamedTuple):
  """Rows of one concatenated source. Each array is int64, sorted but for a fixed test order.

  Attributes:
    train: Rows to learn from, a subset of ``database``.
    database: Rows to search in.
    query: Rows to search with, none of them in ``database``.
  """

  train: np.ndarray
  database: np.ndarray
  query: np.ndarray


def permutation(size: int, *seed: int) -> np.ndarray:
  """A random order of ``range(size)`` that depends on the seed words alone.

  Args:
    size: Number of items.
    *seed: Non-negative integers.

  Returns:
    Array of shape ``[size]``, int64.
  """
  raw = np.random.Philox(np.random.SeedSequence(seed)).random_raw(size)
  return np.argsort(raw, kind="stable")


def balanced_sample(
  labels: np.ndarray, count: int, *seed: int, leave_half: bool = True
) -> np.ndarray:
  """Draws the same number of rows from every class, as nearly as possible.

  What a small class cannot give comes from the others.

  Args:
    labels: Class of each row. Integer array of shape ``[n]``.
    count: How many rows to draw.
    *seed: Seed words of the draw.
    leave_half: Whether no class gives more than half of its rows.

  Returns:
    Sorted positions into ``labels``. Array of shape ``[count]``, int64.

  Raises:
    InputError: If ``count`` is more than the classes can give.

  References:
    Our own definition; for EuroSAT it gives the 100 queries a class of the usual protocol.
  """
  classes, sizes = np.unique(labels, return_counts=True)
  room = sizes // 2 if leave_half else sizes
  require(count <= room.sum(), f"{count} rows of at most {room.sum()} cannot be drawn.")
  # Raise a common level while the sum allows it; then one more from the first classes with room.
  level = 0
  while level < room.max(initial=0) and np.minimum(room, level + 1).sum() <= count:
    level += 1
  take = np.minimum(room, level)
  take[np.flatnonzero(room > level)[: count - take.sum()]] += 1
  order = permutation(len(labels), *seed)
  ordered = labels[order]
  chosen = [
    order[np.flatnonzero(ordered == cls)[:number]]
    for cls, number in zip(classes, take, strict=True)
  ]
  return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))


def make_splits(
  labels: np.ndarray | None,
  *,
  num_rows: int,
  num_queries: int,
  num_validation: int,
  num_train: int,
  evaluate_on: str,
  seed: int,
  first_test_row: int | None = None,
  fewer_queries: bool = False,
  train_draw: str = "uniform",
  held_out: int = 0,
  parts: np.ndarray | None = None,
  groups: np.ndarray | None = None,
) -> Splits:
  """Splits the rows of a source by a protocol.

  The test queries do not depend on ``evaluate_on``. With "validation" they are in none of the
  splits: the queries are then drawn from the database side, and the database is what is left.

  Args:
    labels: None, integer array of shape ``[n]``, or multi-hot bool array of shape ``[n, L]``.
      Queries are balanced over the classes of a single label, and drawn uniformly from the rows
      that have a label where it is multi-hot. Without labels nothing could be scored: no queries
      are drawn.
    num_rows: n.
    num_queries: How many rows are test queries.
    num_validation: How many rows of the database side are queries where ``evaluate_on`` is
      "validation".
    num_train: How many rows of the database to train on; 0 is all.
    evaluate_on: "query" or "validation".
    seed: Seed of every draw.
    first_test_row: Where an official test part begins: rows from here on are not in the database,
      and the first ``num_queries`` of them are the queries.
    fewer_queries: Take as many as there may be, instead of an error, where more queries are asked
      for than half of the rows, or than the test part has; of a part that is larger, draw them,
      balanced over the classes.
    train_draw: How ``num_train`` rows are drawn: "uniform", without labels, or "balanced", the same
      number of each class, for methods that learn from labels.
    held_out: Where ``num_train`` is 0, how many percent of the database are not trained on, 0 to
      50; at least 100 rows where these are no more than a fifth, and at most 1,000. Codes can be
      compared on them without labels, see `udh_jax.stages.guard`.
    parts: Which part each row belongs to by the data set itself: TRAIN, DATABASE (searched, not
      learned from), VALIDATION or QUERY. int8 array of shape ``[n]``; None draws all parts. Where
      no row is a VALIDATION or QUERY row, these are drawn from the others. VALIDATION rows are in
      no split but as queries of ``evaluate_on`` "validation".
    groups: Rows with the same content have the same number. Integer array of shape ``[n]``; None if
      none has. No two queries that are drawn have the same content, at most half of the contents
      are drawn, and what has the content of a query is not in the database.

  Returns:
    The three index arrays.

  Raises:
    InputError: If more rows are asked for than there are, or a balanced draw of rows that have no
      label or several.
  """
  rows = np.arange(num_rows)
  given = named_parts(num_rows, parts, first_test_row)
  others = rows[(given == TRAIN) | (given == DATABASE)]

  def query_rows(part, database, count, field, purpose):
    """The rows of a part that the data set names, or else drawn ones."""
    there = rows[given == part]
    if not len(there):
      return _draw(labels, database, groups, count, field, fewer_queries, seed, purpose)
    require(
      fewer_queries or count <= len(there),
      f"{field} is {count}, but the {_PART_WORDS[part]} part has {len(there)} images; lower "
      f"{field}.",
    )
    if not fewer_queries:  # an official protocol: the first ones
      return there[:count]
    classes = labels[there] if labels is not None and labels.ndim == 1 else np.zeros(len(there))
    count = min(count, len(there))
    return there[balanced_sample(classes, count, seed, purpose, leave_half=False)]

  query = query_rows(QUERY, others, num_queries, "num_queries", _QUERIES)
  database = _without(others, query, groups)
  if evaluate_on == "validation":
    query = query_rows(VALIDATION, database, num_validation, "num_validation", _VALIDATION)
    database = _without(database, query, groups)
  learned = database[given[database] == TRAIN]
  if held_out and not num_train and len(learned) > 1:
    wanted = max(_FEWEST_HELD_OUT, round(len(learned) * held_out / 100))
    most = max(len(learned) // 5, round(len(learned) * held_out / 100), 1)
    num_train = len(learned) - min(wanted, most, _MOST_HELD_OUT)
  require(
    num_train <= len(learned),
    f"num_train is {num_train}, but {_learned_words(learned, database)}; "
    "lower num_train, or set it to 0 for all of them.",
  )
  train = learned
  if num_train and train_draw == "balanced":
    single = labels if labels is not None and labels.ndim == 1 else None
    require(
      single is not None,
      f"train_draw is 'balanced', but the images have {_kind_of(labels)}; it needs one label an "
      "image: set it to 'uniform'.",
    )
    assert single is not None
    learned = learned[single[learned] >= 0]
    require(
      num_train <= len(learned),
      f"num_train is {num_train}, but {len(learned)} images that are for training have a label; "
      "lower num_train.",
    )
    chosen = balanced_sample(single[learned], num_train, seed, _TRAIN, leave_half=False)
    train = learned[chosen]
  elif num_train:
    train = learned[np.sort(permutation(len(learned), seed, _TRAIN)[:num_train])]
  require(
    len(train) > 0,
    f"None of {num_rows} items is left to train on: {len(query)} are queries, and of the "
    f"{len(database)} in the database none is for training.",
  )
  return Splits(train, database, query)


def named_parts(num_rows: int, parts: np.ndarray | None, first_test_row: int | None) -> np.ndarray:
  """The part of each row by the data set itself; TRAIN where it names none.

  Args:
    num_rows: n.
    parts: As of `make_splits`.
    first_test_row: See there.

  Returns:
    int8 array of shape ``[n]``.
  """
  given = np.full(num_rows, TRAIN, np.int8) if parts is None else parts
  if first_test_row is not None:
    given = np.where(np.arange(num_rows) < first_test_row, given, QUERY)
  return given


_PART_WORDS = {QUERY: "test", VALIDATION: "validation"}


def _learned_words(learned, database):
  if len(learned) == len(database):
    return f"the database has {len(database)} images"
  return f"{len(learned)} images are for training"


def _without(rows, query, groups):
  """Rows that are no queries, nor have the content of one."""
  rows = np.setdiff1d(rows, query)
  return rows if groups is None else rows[~np.isin(groups[rows], groups[query])]


def _kind_of(labels):
  return "no labels" if labels is None else "several labels each"


def _draw(labels, rows, contents, count, field, fewer, seed, purpose):
  """Draws `count` of `rows` that can be queries, of other contents, at most half of each class."""
  if labels is None:
    return rows[:0]
  single = labels.ndim == 1
  candidates = rows[labels[rows] >= 0 if single else labels[rows].any(axis=1)]
  if contents is not None:
    first = np.unique(contents[candidates], return_index=True)[1]
    candidates = candidates[np.sort(first)]
  groups = labels[candidates] if single else np.zeros(len(candidates), np.int32)
  available = int((np.unique(groups, return_counts=True)[1] // 2).sum())
  require(
    fewer or count <= available,
    f"{field} is {count}, but half of the {len(candidates)} images with a label allow {available}; "
    f"lower {field}.",
  )
  return candidates[balanced_sample(groups, min(count, available), seed, purpose)]


def split_digest(splits: Splits, names: Sequence[str]) -> str:
  """SHA-256 of the splits and of the item names that give the row numbers their meaning.

  Args:
    splits: The index arrays.
    names: Name of each row of the source.

  Returns:
    64 hexadecimal digits. Equal digests mean the same items in the same parts.
  """
  digest = hashlib.sha256()
  for part, rows in zip(splits._fields, splits, strict=True):
    digest.update(f"{part} {len(rows)}\n".encode())
    digest.update(np.ascontiguousarray(rows, "<i8").tobytes())
  digest.update("\n".join(names).encode("utf-8", "surrogateescape"))
  return digest.hexdigest()


def write_manifest(dataset: Any, path: str | os.PathLike[str]) -> None:
  """Writes who is query, database and train as JSON, whole or not at all.

  The rows of each part by number, and the names of all rows.

  Args:
    dataset: A `Dataset`.
    path: File to write; its folder has to exist.
  """
  manifest = {
    "name": dataset.name,
    "protocol": dataset.protocol,
    "digest": dataset.digest,
    "num_rows": len(dataset.images),
    **{part: rows.tolist() for part, rows in dataset.splits._asdict().items()},
    "names": list(dataset.names),
  }
  write_text(path, json.dumps(manifest) + "\n")
