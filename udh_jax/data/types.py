"""What a reader hands over, and what a run works on: images, texts, labels and splits."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from udh_jax.data.protocol import Splits

Progress = Callable[[int, int], None]  # called with (items done, items in all)


class Images(Protocol):
  """Random access to images of one shape, also from threads; a NumPy array is one.

  An image is a picture ``[h, w, 3]``, uint8, or features of one that were made elsewhere, ``[d]``,
  float32.
  """

  def __len__(self) -> int:
    """Number of images."""

  def __getitem__(self, row: int) -> np.ndarray:
    """One image."""


class Texts(NamedTuple):
  """Texts as a network takes them.

  Attributes:
    texts: Of each item. Array of shape ``[n, t]``, bool, uint8 or float32.
    words: What each column stands for, t strings, or empty.
    notes: What was left out to get them, in lines.
  """

  texts: np.ndarray
  words: Sequence[str]
  notes: Sequence[str] = ()


class Source(NamedTuple):
  """What a reader of one kind of data hands over; row i is the same item in every field.

  Attributes:
    images: Random access to n images.
    image_shape: Shape of every image, ``(h, w, 3)`` or ``(d,)``.
    names: Name of each item, n strings.
    labels: None, int32 array of shape ``[n]``, -1 for an item without one, or multi-hot bool array
      of shape ``[n, L]``.
    class_names: Name of each class, empty without labels.
    first_test_row: Where an official test part begins, or None.
    fewer_queries: Whether a config may ask for more queries than there can be: of a set whose size
      is not known beforehand.
    texts: None, or the text of each item: tags that it has (bool), counts of words, or features.
      Array of shape ``[n, t]``, bool, uint8 or float32.
    words: What each column of ``texts`` stands for, t strings, or empty.
    labels_used: Of images that are features: the labels that were used to make them, in words.
    picture_side: Short side of the pictures before they were brought to one size, in pixels; the
      median. 0 is as of ``image_shape``.
    captions: The text of each item as it was written, n strings, or empty.
    tokenizer: How captions were cut into words, "icu" (`udh_jax.data.words.cut`); "" if not at all.
    make_texts: Makes ``texts`` and ``words`` of the training rows, once these are known.
    parts: Which part each item belongs to, see `udh_jax.data.protocol.make_splits`.
    groups: Which items have the same content, see there.
    notes: What was left out, in lines.
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
  picture_side: int = 0
  captions: Sequence[str] = ()
  tokenizer: str = ""
  make_texts: Callable[[np.ndarray], Texts] | None = None
  parts: np.ndarray | None = None
  groups: np.ndarray | None = None
  notes: Sequence[str] = ()


class Reader(NamedTuple):
  """How one data set is read.

  Attributes:
    read: ``(config, progress) -> Source``; ``config`` has ``fields`` as attributes.
    fields: The fields of ``config.data`` that it reads, with their default values.
    choices: The words that a field may have, by field; other fields are strings or whole numbers.
  """

  read: Callable[[Any, Progress], Source]
  fields: Mapping[str, Any] = {}
  choices: Mapping[str, tuple[str, ...]] = {}


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
    picture_side: Short side of the pictures as they were, in pixels; the median.
    captions: The text of each item as it was written, or empty.
    tokenizer: How captions were cut into words, or "".
    notes: What was left out of the data, in lines.
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
  picture_side: int = 0
  captions: Sequence[str] = ()
  tokenizer: str = ""
  notes: Sequence[str] = ()

  @property
  def has_pictures(self) -> bool:
    """Whether images are pictures, and not features."""
    return len(self.image_shape) == 3

  @property
  def image_dtype(self) -> np.dtype:
    """uint8 of pictures, float32 of features."""
    return np.dtype(np.uint8 if self.has_pictures else np.float32)

  @functools.cached_property
  def images_digest(self) -> str:
    """SHA-256 over the images that are in memory, or over the sizes of their files.

    Empty where neither is known: of data sets that are published once and for all.
    """
    if isinstance(self.images, np.ndarray):
      return _digest(self.images, ())
    return getattr(self.images, "digest", "")

  @property
  def contents_digest(self) -> str:
    """BLAKE2b over the contents of the images' files; empty where `images_digest` is enough."""
    return getattr(self.images, "contents", "")

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
