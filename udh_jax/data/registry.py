"""Data sets by name, and one function that loads any of them."""

import types
from typing import Any

import numpy as np

from udh_jax.data.protocol import QUERY, VALIDATION, make_splits, named_parts, split_digest
from udh_jax.data.readers import digits, features, flickr25k, folder, nus_wide, pairs, tfds
from udh_jax.data.types import Dataset, Progress, Reader, Source, Texts
from udh_jax.errors import require
from udh_jax.records import brief, whole

READERS: dict[str, Reader] = {
  "digits": digits.DIGITS,
  "cifar10": tfds.CIFAR10,
  "svhn": tfds.SVHN,
  "eurosat": tfds.EUROSAT,
  "flickr25k": flickr25k.FLICKR25K,
  "folder": folder.FOLDER,
  "mirflickr25k": flickr25k.MIRFLICKR25K,
  "nus_wide": nus_wide.NUS_WIDE,
  "pairs": pairs.PAIRS,
  "features": features.FEATURES,
  "wikipedia": features.WIKIPEDIA,
}

# Of every data set: who is query, database and train, see `udh_jax.data.protocol.make_splits`.
# num_train 0 is the whole database. A reader may set other default values.
_SPLITS = {
  "evaluate_on": "query",
  "num_queries": 1000,
  "num_validation": 1000,
  "num_train": 0,
  "held_out": 0,
  "train_draw": "uniform",
  "seed": 0,
}
_SPLIT_CHOICES = {
  "evaluate_on": ("query", "validation"),
  "train_draw": ("uniform", "balanced"),
}
# Other counts are of images, and 0 has a meaning.
_COUNTS = {
  "image_size": whole(1, 1 << 14),  # pixels
  "held_out": whole(0, 50),  # percent
  "min_tag_count": whole(1, 10**9),
  "min_word_count": whole(1, 10**9),
  "max_words": whole(1, 10**6),
  "seed": whole(0, 2**31 - 1),
}


def data_config(name: str) -> Any:
  """The config of a data set with its default values.

  Fields: name; evaluate_on ("query" is the test protocol, "validation" draws the queries from the
  database side and keeps the test queries out of sight); num_queries; num_validation; num_train (0
  is all of the database); held_out (so many percent of the database, at most 1,000 images, are not
  trained on even so); train_draw ("uniform", or "balanced": the same number of each class, for
  methods that learn from labels); seed; path where there are files to find; image_size (side of the
  square the host decodes to) and on_unreadable ("skip" or "refuse") where there are picture files.
  cifar10 and svhn have test_part: "official" takes the queries from the test part alone, "pooled"
  draws them from all images, balanced over the classes, and all others are the database.

  Image-text pairs have on_unpaired: whether to "keep", "skip" or "refuse" pictures without a tag
  and, in mirflickr25k, without a label. mirflickr25k has min_tag_count (on how many pictures a tag
  has to be), nus_wide selection ("tc10" or "tc21": the concepts that are taken). Their path is a
  folder in the official layout, or the TFDS directory that `udh_jax.data.builders` prepared.

  pairs reads a table of one's own; its fields are the arguments of
  `udh_jax.data.readers.pairs.read_pairs_table`.

  features and wikipedia read one .npz or .mat file at path. image, text, label, image_test,
  text_test and label_test name its arrays; "" is none, and no label, text or test part is needed.
  labels_used says what labels the image features were made with.

  Args:
    name: A known data set.

  Returns:
    An `ml_collections.ConfigDict`.

  Raises:
    InputError: If the name is unknown.
  """
  import ml_collections

  return ml_collections.ConfigDict({"name": name, **_fields(_lookup(name))})


def _lookup(name: str) -> Reader:
  require(
    isinstance(name, str) and name in READERS,
    f"Unknown data set {brief(name)}; the known ones are {', '.join(READERS)}.",
  )
  return READERS[name]


def _fields(reader: Reader) -> dict[str, Any]:
  """All fields of a data set with their default values."""
  return {**_SPLITS, **reader.fields}


def _checked(config: Any, reader: Reader) -> types.SimpleNamespace:
  """The fields that the data set reads, each checked."""
  usual, choices = _fields(reader), {**_SPLIT_CHOICES, **reader.choices}
  fields = {key: getattr(config, key, value) for key, value in usual.items()}
  for key, value in fields.items():
    given = f"data field {key} is {brief(value)}"
    if key in choices:
      require(
        isinstance(value, str) and value in choices[key],
        f"{given}; choose one of {', '.join(choices[key])}.",
      )
    elif isinstance(usual[key], str):
      require(isinstance(value, str), f"{given}; give a string.")
    else:
      kind = _COUNTS.get(key, whole(0, 10**9))
      require(kind.holds(value), f"{given}; give {kind.words}.")
  return types.SimpleNamespace(name=config.name, **fields)


def require_valid(config: Any) -> None:
  """Refuses a data set's fields before it is looked for.

  Args:
    config: As of `load_dataset`.

  Raises:
    InputError: If the name is unknown, or a field is invalid.
  """
  _checked(config, _lookup(config.name))


def load_dataset(config: Any, *, progress: Progress | None = None) -> Dataset:
  """Loads a data set and splits it by its protocol.

  Args:
    config: Object with the fields of `data_config`; a field it lacks has its usual value.
    progress: Called with (items done, items in all) while pictures are read or checked.

  Returns:
    The data set.

  Raises:
    InputError: If the data are not there, the name is unknown, or a field is invalid.
  """
  reader = _lookup(config.name)
  config = _checked(config, reader)
  source = reader.read(config, progress or (lambda done, total: None))
  splits = make_splits(
    source.labels,
    num_rows=len(source.images),
    first_test_row=source.first_test_row,
    fewer_queries=source.fewer_queries,
    parts=source.parts,
    groups=source.groups,
    **{field: getattr(config, field) for field in _SPLITS},
  )
  made = Texts(source.texts, source.words) if source.texts is not None else None
  if source.make_texts is not None:
    made = source.make_texts(splits.train)
  digest = split_digest(splits, source.names)
  drawn = " (the same number of each class)" if _is_balanced(config) else ""
  protocol = (
    f"{config.name}: {len(splits.query)} {'' if config.evaluate_on == 'query' else 'validation '}"
    f"queries, {len(splits.database)} database, {len(splits.train)} train{drawn}, "
    f"seed {config.seed}, split {digest[:12]}"
  )
  return Dataset(
    name=config.name,
    images=source.images,
    image_shape=source.image_shape,
    labels=source.labels,
    names=source.names,
    class_names=source.class_names,
    splits=splits,
    protocol=protocol,
    digest=digest,
    texts=made.texts if made else None,
    words=made.words if made else (),
    labels_used=source.labels_used,
    picture_side=source.picture_side or source.image_shape[0],
    captions=source.captions,
    tokenizer=source.tokenizer,
    notes=(
      *source.notes,
      *_hidden(source.groups, splits.query),
      *_unused(source, splits.query, config),
      *_unlabelled(source.labels),
      *(made.notes if made else ()),
    ),
  )


def _is_balanced(config: Any) -> bool:
  """Whether labels decided what is trained on."""
  return bool(config.num_train) and config.train_draw == "balanced"


def _unused(source: Source, query: np.ndarray, config: Any) -> list[str]:
  """What a part that the data name has beyond the queries, in words."""
  if not source.fewer_queries:  # an official protocol takes some of an official part
    return []
  given = named_parts(len(source.images), source.parts, source.first_test_row)
  test, validation = (int((given == part).sum()) for part in (QUERY, VALIDATION))
  on_test = config.evaluate_on == "query"
  there, word, field = (
    (test, "test", "num_queries") if on_test else (validation, "validation", "num_validation")
  )
  notes = []
  if there > len(query):
    notes.append(
      f"{len(query):,} of the {there:,} {word} items are queries (data.{field}), the others are "
      "not used"
    )
  if on_test and validation:
    notes.append(
      f"{validation:,} validation items are not used: data.evaluate_on=validation makes them "
      "queries"
    )
  return notes


def _unlabelled(labels: np.ndarray | None) -> list[str]:
  """How many items have no class where others have one, in words."""
  if labels is None or labels.ndim > 1 or not (count := int((labels < 0).sum())):
    return []
  return [f"{count:,} items have no label: they are relevant to nothing, and no queries are drawn"]


def _hidden(groups: np.ndarray | None, query: np.ndarray) -> list[str]:
  """What `make_splits` left out because a query has the same content, in words."""
  if groups is None:
    return []
  count = int(np.isin(groups, groups[query]).sum()) - len(query)
  return [f"{count:,} rows have the picture of a query: left out"] if count else []
