"""One type for every data set, and one function that loads any of them."""

import dataclasses
import functools
import hashlib
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from udh_jax.data.protocol import Splits, make_splits, split_digest
from udh_jax.errors import require


class Images(Protocol):
  """Random access to images of one shape, also from threads; a NumPy array is one.

  An image is a picture ``[h, w, 3]``, uint8, or features of one that were made elsewhere, ``[d]``,
  float32.
  """

  def __len__(self) -> int:
    """Number of images."""

  def __getitem__(self, row: int) -> np.ndarray:
    """One image."""


class Source(NamedTuple):
  """What a reader of one kind of data hands over; row i is the same item in every field.

  Attributes:
    images: Random access to n images.
    image_shape: Shape of every image, ``(h, w, 3)`` or ``(d,)``.
    names: Name of each item, n strings.
    labels: None, int32 array of shape ``[n]``, or multi-hot bool array of shape ``[n, L]``.
    class_names: Name of each class, empty without labels.
    first_test_row: Where an official test part begins, or None.
    fewer_queries: Whether a config may ask for more queries than there can be: of a set whose size
      is not known beforehand.
    texts: None, or the text of each item: tags that it has (bool), counts of words, or features.
      Array of shape ``[n, t]``, bool, uint8 or float32.
    words: What each column of ``texts`` stands for, t strings, or empty.
    labels_used: Of images that are features: the labels that were used to make them, in words.
  """

  images: Images
  image_shape: tuple[int, ...]
  names: Sequence[str]
  labels: np.ndarray | None
  class_names: Sequence[str]
  first_test_row: int | None = None
  fewer_queries: bool = False
  texts: np.ndarray | None = None
  words: Sequence[str] = ()
  labels_used: str = ""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Images, what is known of them, and who is query, database and train.

  Attributes:
    name: Name of the data set.
    images: ``images[i]`` is an image of shape ``image_shape``; has a length n.
    image_shape: ``(h, w, 3)`` of pictures, which are uint8; ``(d,)`` of features, float32.
    labels: None, int32 array of shape ``[n]``, or multi-hot bool array of shape ``[n, L]``.
    names: Name of each item, n strings.
    class_names: Name of each class, empty without labels.
    splits: Rows of the train, database and query parts.
    protocol: One line: counts, seed, digest.
    digest: SHA-256 over names and splits. Hosts of one run have to agree on it.
    texts: None, or the text of each item, see `Source`.
    words: What each column of ``texts`` stands for, or empty.
    labels_used: Behind images that are features, in words.
  """

  name: str
  images: Images
  image_shape: tuple[int, ...]
  labels: np.ndarray | None
  names: Sequence[str]
  class_names: Sequence[str]
  splits: Splits
  protocol: str
  digest: str
  texts: np.ndarray | None = None
  words: Sequence[str] = ()
  labels_used: str = ""

  @property
  def has_pictures(self) -> bool:
    """Whether images are pictures, and not features."""
    return len(self.image_shape) == 3

  @property
  def image_dtype(self) -> np.dtype:
    """uint8 of pictures, float32 of features."""
    return np.dtype(np.uint8 if self.has_pictures else np.float32)

  @functools.cached_property
  def texts_digest(self) -> str:
    """SHA-256 over the texts and their words; empty where there are none."""
    return "" if self.texts is None else _digest(self.texts, self.words)

  @functools.cached_property
  def training_labels_digest(self) -> str:
    """SHA-256 over the labels of the training images and the names of their classes."""
    if self.labels is None:
      return ""
    return _digest(self.labels[self.splits.train], self.class_names)

  def without_labels(self) -> "Dataset":
    """The same, as an unsupervised stage sees it."""
    return dataclasses.replace(self, labels=None, class_names=())


def _digest(array: np.ndarray, columns: Sequence[str]) -> str:
  digest = hashlib.sha256(f"{array.dtype.name} {array.shape}\n".encode())
  digest.update(np.ascontiguousarray(array).data)
  digest.update("\n".join(columns).encode("utf-8", "surrogateescape"))
  return digest.hexdigest()


def _digits(config: Any, progress: Any) -> Source:
  from udh_jax.data.digits import read_digits

  del config, progress  # they come with scikit-learn, at once
  return read_digits()


def _cifar10(config: Any, progress: Any) -> Source:
  return _official_or_pooled("cifar10", config, progress)


def _svhn(config: Any, progress: Any) -> Source:
  return _official_or_pooled("svhn_cropped", config, progress)


def _official_or_pooled(name: str, config: Any, progress: Any) -> Source:
  """Train and test part of a TFDS set; pooled, queries are drawn from all of it."""
  from udh_jax.data.tfds import read_tfds

  source = read_tfds(name, config.path, parts=("train", "test"), progress=progress)
  return source._replace(first_test_row=None) if config.test_part == "pooled" else source


def _eurosat(config: Any, progress: Any) -> Source:
  from udh_jax.data.tfds import read_tfds

  return read_tfds("eurosat/rgb", config.path, parts=("train",), progress=progress)


def _flickr25k(config: Any, progress: Any) -> Source:
  from udh_jax.data.flickr25k import read_flickr25k

  return read_flickr25k(config.path, **_file_options(config), progress=progress)


def _folder(config: Any, progress: Any) -> Source:
  from udh_jax.data.folder import read_folder

  return read_folder(config.path, **_file_options(config), progress=progress)


def _mirflickr25k(config: Any, progress: Any) -> Source:
  from udh_jax.data.flickr25k import list_mirflickr25k

  settings = {"min_tag_count": config.min_tag_count, "on_unpaired": config.on_unpaired}
  return _read_pairs("mirflickr25k", config, progress, list_mirflickr25k, settings)


def _nus_wide(config: Any, progress: Any) -> Source:
  from udh_jax.data.nus_wide import list_nus_wide

  settings = {"selection": config.selection, "on_unpaired": config.on_unpaired}
  return _read_pairs(f"nus_wide/{config.selection}", config, progress, list_nus_wide, settings)


def _read_pairs(
  name: str,
  config: Any,
  progress: Any,
  list_files: Callable[..., Any],
  settings: dict[str, Any],
) -> Source:
  """Pairs that TFDS prepared, where data.path holds such, or else the official files."""
  from udh_jax.data.listing import open_listing
  from udh_jax.data.tfds import is_prepared, read_tfds_pairs

  if is_prepared(name, config.path):
    return read_tfds_pairs(
      name, config.path, image_size=config.image_size, settings=settings, progress=progress
    )
  return open_listing(
    list_files(config.path, **settings), **_file_options(config), progress=progress
  )


def _features(config: Any, progress: Any, *, default_file: str = "") -> Source:
  from udh_jax.data.features import read_features

  del progress  # one file, read at once
  fields = {field: getattr(config, field) for field in _ARRAYS}
  return read_features(config.path, **fields, default_file=default_file)


def _file_options(config: Any) -> dict[str, Any]:
  return {"image_size": config.image_size, "on_unreadable": config.on_unreadable}


# What each data set reads from the config, with its usual values: the one place where fields are
# defined. num_train 0 is the whole database; path "" is TFDS_DATA_DIR or TFDS's own default.
_COUNTS = {"evaluate_on": "query", "num_queries": 1000, "num_validation": 1000, "num_train": 0}
_SEEDED = {**_COUNTS, "train_draw": "uniform", "seed": 0}
_FILES = {"path": "", "image_size": 256, "on_unreadable": "skip"}
_FLICKR = {**_SEEDED, **_FILES, "num_queries": 2000, "num_train": 5000}
_ARRAYS = {
  "image": "image",
  "text": "text",
  "label": "label",
  "image_test": "",
  "text_test": "",
  "label_test": "",
  "labels_used": "unknown (features given)",
}
_WIKIPEDIA_ARRAYS = {
  **{field: f"{field}_train" for field in ("image", "text", "label")},
  **{f"{field}_test": f"{field}_test" for field in ("image", "text", "label")},
  "labels_used": "none (SIFT histograms)",
}
_DATASETS: dict[str, tuple[Callable[[Any, Any], Source], dict[str, Any]]] = {
  "digits": (_digits, {**_SEEDED, "num_queries": 300, "num_validation": 200}),
  "cifar10": (_cifar10, {**_SEEDED, "path": "", "test_part": "official"}),
  "eurosat": (_eurosat, {**_SEEDED, "path": ""}),
  "flickr25k": (_flickr25k, _FLICKR),
  "folder": (_folder, {**_SEEDED, **_FILES}),
  "mirflickr25k": (_mirflickr25k, {**_FLICKR, "min_tag_count": 20, "on_unpaired": "skip"}),
  "nus_wide": (_nus_wide, {**_FLICKR, "selection": "tc10", "on_unpaired": "keep"}),
  "features": (_features, {**_SEEDED, "path": "", **_ARRAYS}),
  "wikipedia": (
    functools.partial(_features, default_file="wikipedia.npz"),
    {**_SEEDED, "num_queries": 693, "num_validation": 217, "path": "", **_WIKIPEDIA_ARRAYS},
  ),
  "svhn": (_svhn, {**_SEEDED, "path": "", "test_part": "official"}),
}
# How many of the most frequent concepts each selection of NUS-WIDE takes.
NUS_WIDE_SELECTIONS = {"tc10": 10, "tc21": 21}
_CHOICES = {
  "evaluate_on": ("query", "validation"),
  "train_draw": ("uniform", "balanced"),
  "test_part": ("official", "pooled"),
  "on_unreadable": ("skip", "refuse"),
  "on_unpaired": ("keep", "skip", "refuse"),
  "selection": tuple(NUS_WIDE_SELECTIONS),
}


def data_config(name: str) -> Any:
  """The config of a data set with its usual values.

  Fields: name; evaluate_on ("query" is the test protocol, "validation" draws the queries from the
  database side and keeps the test queries out of sight); num_queries; num_validation; num_train (0
  is all of the database); train_draw ("uniform", or "balanced": the same number of each class, for
  methods that learn from labels); seed; path where there are files to find; image_size (side of the
  square the host decodes to) and on_unreadable ("skip" or "refuse") where there are picture files.
  cifar10 and svhn have test_part: "official" takes the queries from the test part alone, "pooled"
  draws them from all images, balanced over the classes, and all others are the database.

  Image-text pairs have on_unpaired: whether to "keep", "skip" or "refuse" pictures without a tag
  and, in mirflickr25k, without a label. mirflickr25k has min_tag_count (on how many pictures a tag
  has to be), nus_wide selection ("tc10" or "tc21": the concepts that are taken). Their path is a
  folder in the official layout, or the TFDS directory that `udh_jax.data.builders` prepared.

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

  return ml_collections.ConfigDict({"name": name, **_lookup(name)[1]})


def _lookup(name: str) -> tuple[Callable[[Any, Any], Source], dict[str, Any]]:
  require(
    name in _DATASETS, f"Unknown data set {name!r}; the known ones are {', '.join(_DATASETS)}."
  )
  return _DATASETS[name]


def _with_defaults(config: Any, defaults: dict[str, Any]) -> types.SimpleNamespace:
  """The fields that the data set reads, each checked."""
  fields = {key: getattr(config, key, value) for key, value in defaults.items()}
  for key, value in fields.items():
    given = f"data field {key} is {value!r}"
    if key in _CHOICES:
      require(value in _CHOICES[key], f"{given}; choose one of {', '.join(_CHOICES[key])}.")
    elif isinstance(defaults[key], str):
      require(isinstance(value, str), f"{given}; give a string.")
    else:
      least = 1 if key in ("image_size", "min_tag_count") else 0
      require(
        isinstance(value, int) and value >= least, f"{given}; give a whole number from {least} on."
      )
  return types.SimpleNamespace(name=config.name, **fields)


def load_dataset(config: Any, *, progress: Callable[[int, int], None] | None = None) -> Dataset:
  """Loads a data set and splits it by its protocol.

  Args:
    config: Object with the fields of `data_config`; a field it lacks has its usual value.
    progress: Called with (items done, items in all) while pictures are read or checked.

  Returns:
    The data set.

  Raises:
    InputError: If the data are not there, the name is unknown, or a field has no sense.
  """
  read, defaults = _lookup(config.name)
  config = _with_defaults(config, defaults)
  source = read(config, progress or (lambda done, total: None))
  splits = make_splits(
    source.labels,
    num_rows=len(source.images),
    first_test_row=source.first_test_row,
    fewer_queries=source.fewer_queries,
    **{field: getattr(config, field) for field in _SEEDED},
  )
  digest = split_digest(splits, source.names)
  protocol = (
    f"{config.name}: {len(splits.query)} {'' if config.evaluate_on == 'query' else 'validation '}"
    f"queries, {len(splits.database)} database, {len(splits.train)} train, seed {config.seed}, "
    f"split {digest[:12]}"
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
    texts=source.texts,
    words=source.words,
    labels_used=source.labels_used,
  )
