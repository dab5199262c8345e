"""One's own pictures with texts: a table that names picture, text and what else is known."""

import collections
import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from udh_jax.data.images import SomeImages
from udh_jax.data.pictures import open_pictures
from udh_jax.data.protocol import DATABASE, QUERY, TRAIN, VALIDATION
from udh_jax.data.readers.files import FILE_CHOICES, FILE_FIELDS
from udh_jax.data.readers.table import ENDINGS, read_table
from udh_jax.data.types import Progress, Reader, Source, Texts
from udh_jax.data.words import ICU, cut, indicators, make_vocabulary
from udh_jax.errors import InputError, require, require_finite


class Pairs(NamedTuple):
  """Rows of a table, before any picture is opened; row i is the same one in every field.

  Attributes:
    pictures: Path of each picture, as the table has it.
    captions: The text of each as it stands.
    words: Words of each, or None where texts are features.
    features: None, or features of the texts. float32 array of shape ``[n, t]``.
    labels: Labels of each, or None.
    parts: Which part each belongs to, or None. int8 array of shape ``[n]``.
  """

  pictures: list[str]
  captions: list[str]
  words: list[list[str]] | None
  features: np.ndarray | None
  labels: list[list[str]] | None
  parts: np.ndarray | None

  def take(self, rows: Sequence[int] | np.ndarray) -> "Pairs":
    """Some of the rows."""
    rows = np.asarray(rows, np.int64)

    def some(values):
      if values is None or isinstance(values, np.ndarray):
        return values if values is None else values[rows]
      return [values[row] for row in rows]

    return Pairs(*map(some, self))


# Words of a split column, in lower case.
_PARTS = {
  "train": TRAIN,
  "training": TRAIN,
  "database": DATABASE,
  "validation": VALIDATION,
  "val": VALIDATION,
  "valid": VALIDATION,
  "dev": VALIDATION,
  "test": QUERY,
  "query": QUERY,
}


def read_pairs_table(
  path: str,
  *,
  folder: str = "",
  image_column: str = "image",
  text_column: str = "text",
  label_column: str = "",
  label_separator: str = "",
  split_column: str = "",
  text_features: str = "",
  min_word_count: int = 3,
  max_words: int = 5000,
  image_size: int = 256,
  on_missing: str = "skip",
  on_unreadable: str = "skip",
  on_empty: str = "skip",
  on_duplicate: str = "skip",
  progress: Progress = lambda done, total: None,
) -> Source:
  """Reads a table of pairs and opens its pictures.

  A row repeats another where picture (by content) and text are the same. Pictures of one content
  are kept on one side of the split: see `udh_jax.data.protocol.make_splits`. What was left out is
  counted in the source's notes.

  Args:
    path: The table, see `udh_jax.data.readers.table.read_table`.
    folder: What relative paths of pictures begin at; "" is the table's folder.
    image_column: Paths of the pictures.
    text_column: Texts; "" where ``text_features`` has them all.
    label_column: Labels, or "" for none. Nothing is learned from them; scores need them.
    label_separator: What stands between several labels of a cell; "" takes the cell as one label.
    split_column: Which part each row belongs to, or "": train, database, validation (val, dev), or
      test (query). A table without "database" is searched in what it trains on.
    text_features: Where texts are features of one's own: an .npy file of shape ``[rows, t]``, or
      the column that names an .npy file of shape ``[t]`` in each row. "" cuts the texts into words
      (`udh_jax.data.words.cut`).
    min_word_count: In how many training texts a word of the vocabulary has to be.
    max_words: Words of the vocabulary at most, the most frequent ones.
    image_size: Side of the square that each picture becomes.
    on_missing: What is done with rows whose picture is not there: "skip" leaves them out, "refuse"
      makes them an error.
    on_unreadable: The same of pictures that cannot be decoded.
    on_empty: The same of texts without a word; "keep" keeps them.
    on_duplicate: The same of rows that repeat another; "keep" keeps them.
    progress: Called with (pictures done, pictures in all) while pictures are checked.

  Returns:
    The source; its texts are made once the training rows are known.

  Raises:
    InputError: If table, columns or pictures are not there, or by one of the policies.
  """
  require(path != "", f"Pairs need a table: set data.path to it ({', '.join(ENDINGS)}).")
  require(
    bool(text_column) or bool(text_features),
    "text_column and text_features are both ''; name the column of texts, or the features.",
  )
  pairs = _read_rows(
    path, image_column, text_column, label_column, label_separator, split_column, text_features
  )
  num_rows = len(pairs.pictures)
  require(num_rows > 0, f"{path} has no rows.")
  table = pathlib.Path(path).expanduser()
  root = pathlib.Path(folder).expanduser() if folder else table.parent
  notes = [f"{table}: {num_rows:,} rows"]

  def leave_out(pairs: Pairs, bad: np.ndarray, policy: str, field: str, words: str) -> Pairs:
    """Applies a policy to the rows that something is wrong with."""
    if not bad.any():
      return pairs
    first = pairs.pictures[int(np.flatnonzero(bad)[0])]
    counted = f"{bad.sum():,} {words} (the first is {first})"
    if policy == "refuse":
      others = '"skip"' if field == "on_missing" else '"skip" or "keep"'
      raise InputError(f"{table}: {counted}; mend the table, or set data.{field} to {others}.")
    notes.append(f"{counted}: {'kept' if policy == 'keep' else 'left out'}")
    require(policy == "keep" or not bad.all(), f"{table}: no row is left: {'; '.join(notes[1:])}.")
    return pairs if policy == "keep" else pairs.take(np.flatnonzero(~bad))

  missing = np.array([not name or not _is_file(root / name) for name in pairs.pictures])
  pairs = leave_out(pairs, missing, on_missing, "on_missing", "rows whose picture is not there")
  if pairs.words is not None:
    empty = np.array([not words for words in pairs.words])
    pairs = leave_out(pairs, empty, on_empty, "on_empty", "texts without a word")
  files = list(dict.fromkeys(pairs.pictures))
  pictures = open_pictures(
    root, files, size=image_size, on_unreadable=on_unreadable, progress=progress
  )
  readable = {name: row for row, name in enumerate(pictures.names)}
  bad = np.array([name not in readable for name in pairs.pictures])
  pairs = leave_out(pairs, bad, "skip", "on_unreadable", "rows whose picture cannot be read")
  try:
    contents = _contents(root, pictures.names)
  except OSError as error:
    raise InputError(
      f"{error.filename} cannot be read any more ({error.strerror}); start again, which finds out "
      "which pictures are there."
    ) from error
  groups = np.array([contents[readable[name]] for name in pairs.pictures], np.int64)
  seen: set[tuple] = set()
  repeats = np.zeros(len(groups), bool)
  for row, group in enumerate(groups):
    text = pairs.captions[row] if pairs.features is None else pairs.features[row].tobytes()
    repeats[row] = (group, text) in seen
    seen.add((group, text))
  kept = np.ones(len(groups), bool) if on_duplicate == "keep" else ~repeats
  pairs = leave_out(
    pairs, repeats, on_duplicate, "on_duplicate", "rows repeat picture and text of another"
  )
  groups = groups[kept]
  labels, class_names = _numbered(pairs.labels)
  if labels is not None and labels.ndim == 2 and not labels.any(axis=1).all():
    notes.append(f"{(~labels.any(axis=1)).sum():,} rows have no label: none of them is a query")
  return Source(
    images=SomeImages(pictures.images, np.array([readable[n] for n in pairs.pictures], np.int64)),
    image_shape=(image_size, image_size, 3),
    names=pairs.pictures,
    labels=labels,
    class_names=class_names,
    fewer_queries=True,
    texts=pairs.features,
    captions=pairs.captions,
    tokenizer="" if pairs.words is None else ICU,
    make_texts=None
    if pairs.words is None
    else lambda train: _bag_of_words(pairs.words, train, min_word_count, max_words),
    parts=pairs.parts,
    groups=groups,
    notes=notes,
  )


def _read_rows(
  path, image_column, text_column, label_column, label_separator, split_column, text_features
) -> Pairs:
  require(image_column != "", "image_column is ''; name the column of the pictures' paths.")
  whole = text_features.lower().endswith(".npy")
  per_row = "" if whole else text_features
  names = [image_column, text_column, label_column, split_column, per_row]
  columns = read_table(path, [name for name in names if name])
  pictures = [_one(path, image_column, value) for value in columns[image_column]]
  captions = [_one(path, text_column, value) for value in columns.get(text_column, [])]
  features = None
  if text_features:
    features = _features(path, text_features, None if whole else columns[per_row], len(pictures))
  return Pairs(
    pictures,
    captions or [""] * len(pictures),
    None if text_features else [cut(text) for text in captions],
    features,
    _labels(columns[label_column], label_separator) if label_column else None,
    _parts(path, split_column, columns[split_column]) if split_column else None,
  )


def _one(path, column, value) -> str:
  require(
    isinstance(value, str),
    lambda: f"{path}: the column {column!r} holds lists; one value a row is needed.",
  )
  return value


def _labels(values, separator) -> list[list[str]]:
  if separator:
    values = [
      [
        part
        for text in ([value] if isinstance(value, str) else value)
        for part in text.split(separator)
      ]
      for value in values
    ]
  cells = [[value] if isinstance(value, str) else value for value in values]
  return [[label.strip() for label in cell if label.strip()] for cell in cells]


def _numbered(labels) -> tuple[np.ndarray | None, list[str]]:
  """Labels as a `Source` has them: whole numbers where each row has one, else multi-hot."""
  if labels is None:
    return None, []
  class_names = sorted({label for row in labels for label in row})
  if not class_names:
    return None, []
  number = {label: position for position, label in enumerate(class_names)}
  if all(len(row) == 1 for row in labels):
    return np.array([number[row[0]] for row in labels], np.int32), class_names
  return indicators(labels, class_names), class_names


def _parts(path, column, values) -> np.ndarray:
  for row, value in enumerate(values):
    require(
      isinstance(value, str) and value.strip().lower() in _PARTS,
      f"{path}: row {row + 1} has {value!r} in the column {column!r}; parts are "
      f"{', '.join(_PARTS)}.",
    )
  return np.array([_PARTS[value.strip().lower()] for value in values], np.int8)


def _features(path, field, cells, num_rows) -> np.ndarray:
  base = pathlib.Path(path).expanduser().parent
  if cells is None:
    array = _load(base / pathlib.Path(field).expanduser())
    require(
      array.ndim == 2 and len(array) == num_rows,
      f"{field} has the shape {array.shape}; a row of features for each of the {num_rows} rows of "
      f"{path} is needed.",
    )
  else:
    rows = [_load(base / _one(path, field, cell)) for cell in cells]
    shapes = {row.shape for row in rows}
    require(
      len(shapes) == 1 and rows[0].ndim == 1,
      f"{path}: the files in the column {field!r} have the shapes {sorted(shapes)[:3]}; one "
      "vector [t] in each is needed, all as long.",
    )
    array = np.stack(rows)
  require(array.dtype.kind in "biuf", f"{field} has the type {array.dtype}; numbers are needed.")
  array = np.ascontiguousarray(array, np.float32)
  require_finite(field, array)
  return array


def _load(file) -> np.ndarray:
  try:
    found = np.load(file, allow_pickle=False)
  except (OSError, ValueError, EOFError) as error:
    reason = getattr(error, "strerror", None) or error
    raise InputError(f"{file} cannot be read as an .npy file ({reason}).") from error
  if not isinstance(found, np.ndarray):
    found.close()
    raise InputError(f"{file} is an archive of several arrays (.npz); give an .npy file.")
  return found


def _is_file(path: pathlib.Path) -> bool:
  try:
    return path.is_file()
  except (OSError, ValueError):  # a name too long, or a folder that may not be entered
    return False


def _contents(root: pathlib.Path, names: Sequence[str]) -> list[int]:
  """A number for each file, the same where the bytes are the same; reads only files of one size."""
  sizes = [(root / name).stat().st_size for name in names]
  shared = {size for size, count in collections.Counter(sizes).items() if count > 1}
  numbers: dict[Any, int] = {}
  found = []
  for name, size in zip(names, sizes, strict=True):
    key: Any = name
    if size in shared:
      with open(root / name, "rb") as file:
        key = hashlib.file_digest(file, "sha256").digest()
    found.append(numbers.setdefault(key, len(numbers)))
  return found


def _bag_of_words(words, train, min_word_count, max_words) -> Texts:
  """Which words of the training rows' vocabulary each text has."""
  known = make_vocabulary(
    [words[row] for row in train], min_count=min_word_count, max_words=max_words
  )
  texts = indicators(words, known.words)
  notes = [
    f"vocabulary: {len(known.words):,} of the {known.found:,} words of {len(train):,} training "
    f"texts (in {min_word_count} or more texts, at most {max_words:,}), {known.covered:.1%} of "
    "all that is written there"
  ]
  bare = int((~texts.any(axis=1)).sum())
  if bare:
    notes.append(f"{bare:,} texts have no word of the vocabulary: kept")
  return Texts(texts, known.words, notes)


def _read(config: Any, progress: Progress) -> Source:
  options = {name: getattr(config, name) for name in PAIR_FIELDS if name != "path"}
  return read_pairs_table(config.path, **options, progress=progress)


PAIR_FIELDS = {
  **FILE_FIELDS,
  "folder": "",
  "image_column": "image",
  "text_column": "text",
  "label_column": "",
  "label_separator": "",
  "split_column": "",
  "text_features": "",
  "min_word_count": 3,
  "max_words": 5000,
  "on_missing": "skip",
  "on_empty": "skip",
  "on_duplicate": "skip",
}
_POLICIES = ("skip", "keep", "refuse")
PAIRS = Reader(
  _read,
  PAIR_FIELDS,
  {
    **FILE_CHOICES,
    "on_missing": FILE_CHOICES["on_unreadable"],
    "on_empty": _POLICIES,
    "on_duplicate": _POLICIES,
  },
)
