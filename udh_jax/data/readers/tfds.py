"""Data sets prepared by tensorflow-datasets, read without TensorFlow."""

import functools
import io
import os
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from udh_jax.data.images import DecodedImages
from udh_jax.data.pictures import decode_picture
from udh_jax.data.types import Progress, Reader, Source
from udh_jax.errors import InputError, require
from udh_jax.extras import require_extra, require_installed

EXTRA = "tfds"


def read_tfds(name: str, data_dir: str, *, parts: Sequence[str], progress: Progress) -> Source:
  """Reads a prepared data set of pictures of one size, each with one label.

  Labels are read at once, pictures when they are asked for.

  Args:
    name: Name in TFDS, with its configuration, such as "eurosat/rgb".
    data_dir: TFDS data directory; "" is TFDS_DATA_DIR or TFDS's own default.
    parts: The TFDS splits to put one after another; the second, if any, is the test part.
    progress: Called with (records done, records in all).

  Returns:
    The source.

  Raises:
    InputError: If the set is not there or not in the ArrayRecord format.
  """
  from PIL import Image

  def decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
      return np.asarray(image.convert("RGB"))

  root = _data_dir(data_dir)
  arguments = f"{name!r}, data_dir={os.fspath(root)!r}, file_format='array_record'"
  command = (
    'python -c "import tensorflow_datasets as tfds; '
    f'tfds.builder({arguments}).download_and_prepare()"'
  )
  builder = _open_prepared(name, root, f"prepare it with: {command}")
  # The field that names a record is "id" in CIFAR-10 and "filename" in EuroSAT; SVHN has none.
  field = next((field for field in ("id", "filename") if field in builder.info.features), None)
  shape = builder.info.features["image"].shape
  images, names, labels = _read_records(
    name, builder, parts, (field, "label"), decode, shape, progress
  )
  sizes = [builder.info.splits[part].num_examples for part in parts]
  return Source(
    images=images,
    image_shape=shape,
    names=[text.decode() for text in names],
    labels=np.array(labels, np.int32),
    class_names=builder.info.features["label"].names,
    first_test_row=sizes[0] if len(sizes) > 1 else None,
  )


def read_tfds_pairs(
  name: str,
  data_dir: str,
  *,
  image_size: int,
  settings: dict[str, Any],
  progress: Progress,
) -> Source:
  """Reads a set of image-text pairs that a builder of `udh_jax.data.builders` prepared.

  Tags and labels are read at once, pictures when they are asked for: those of a large set do not
  fit into memory, not even as the files they come from.

  Args:
    name: Name in TFDS, with its configuration, such as "nus_wide/tc10".
    data_dir: TFDS data directory.
    image_size: Side of the square that each picture becomes.
    settings: The options that decide what is listed; the set has to be prepared with the same.
    progress: Called with (records done, records in all).

  Returns:
    The source, in the order in which the official files list the pictures.

  Raises:
    InputError: If the set is not in the ArrayRecord format or was prepared with other options.
  """
  builder = _open_prepared(
    name, _data_dir(data_dir), "prepare it again, as udh_jax/data/builders.py says"
  )
  for option, value in settings.items():
    prepared = builder.info.metadata["settings"].get(option)
    require(
      value == prepared,
      f"{builder.data_path} was prepared with {option} {prepared!r}, but the data field {option} "
      f"is {value!r}; set it to {prepared!r}, or data.path to a folder in the official layout.",
    )
  images, names, texts, labels = _read_records(
    name,
    builder,
    ("train",),
    ("id", "tags", "labels"),
    lambda data: decode_picture(data, image_size),
    (image_size, image_size, 3),
    progress,
  )
  return Source(
    images=images,
    image_shape=(image_size, image_size, 3),
    names=[text.decode() for text in names],
    labels=np.stack(labels) if builder.info.metadata["class_names"] else None,
    class_names=builder.info.metadata["class_names"],
    texts=np.stack(texts),
    words=builder.info.metadata["words"],
  )


def is_prepared(name: str, data_dir: str) -> bool:
  """Whether a TFDS data directory holds a prepared set.

  Args:
    name: Name in TFDS, with its configuration.
    data_dir: The directory; "" is TFDS_DATA_DIR or TFDS's own default.

  Returns:
    Whether some version of it is there.
  """
  return len(_versions(_data_dir(data_dir) / name)) > 0


def _data_dir(data_dir: str) -> Any:
  from etils import epath

  return epath.Path(
    data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  ).expanduser()


def _versions(folder: Any) -> list[tuple[tuple[int, ...], Any]]:
  """The versions of a data set that were prepared to the end, with their folders."""
  return [
    (tuple(map(int, path.name.split("."))), path)
    for path in (folder.iterdir() if folder.is_dir() else ())
    if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and (path / "dataset_info.json").exists()
  ]


def _open_prepared(name: str, root: Any, advice: str) -> Any:
  """The builder of the newest version, or an error that says how to prepare one."""
  tfds = require_extra("tensorflow_datasets", extra=EXTRA)
  require_installed("array_record", extra=EXTRA)
  versions = _versions(root / name)
  require(
    len(versions) > 0,
    f"No prepared data set {name} in {root} (looked for {root / name}/VERSION/dataset_info.json); "
    f"set data.path or TFDS_DATA_DIR to where it is, or {advice}",
  )
  folder = max(versions)[1]
  require(
    any("array_record" in path.name for path in folder.iterdir()),
    f"{folder} holds no ArrayRecord file, the one format with random access; remove the folder and "
    f"{advice}",
  )
  return tfds.builder_from_directory(folder)


def _read_records(name, builder, parts, fields, decode, image_shape, progress):
  """Pictures of all parts, one after another, and the values of each field, the first a name.

  Where there is no such field, None, records are named by part and number.
  """
  tfds = require_extra("tensorflow_datasets", extra=EXTRA)
  # Pictures stay encoded while fields are read: parsing alone takes a fifth of the time.
  encoded = {"image": tfds.decode.SkipDecoding()}
  sources = [builder.as_data_source(split=part, decoders=encoded) for part in parts]
  starts = np.cumsum([0, *map(len, sources)])
  values = [[] for _ in fields]
  for part, source, offset in zip(parts, sources, starts, strict=False):
    for start in range(0, len(source), _CHUNK):
      rows = range(start, min(start + _CHUNK, len(source)))
      for row, record in zip(rows, source.__getitems__(rows), strict=True):
        for column, field in zip(values, fields, strict=True):
          column.append(f"{part}_{row}".encode() if field is None else record[field])
      progress(int(offset) + rows.stop, int(starts[-1]))

  def decode_row(row: int) -> np.ndarray:
    part = int(np.searchsorted(starts, row, side="right")) - 1
    try:
      # Read again, 40 us: so the encoded pictures need no memory.
      return decode(sources[part][row - int(starts[part])]["image"])
    except (OSError, SyntaxError, ValueError) as error:
      raise InputError(
        f"Image {values[0][row].decode()} of {name} cannot be decoded ({error}); "
        "remove the data set's folder and prepare it again."
      ) from error

  return DecodedImages(decode_row, int(starts[-1]), image_shape), *values


_CHUNK = 1000  # records between two reports of progress


def _read_official_or_pooled(config: Any, progress: Progress, *, name: str) -> Source:
  """Train and test part; pooled, queries are drawn from all of it."""
  source = read_tfds(name, config.path, parts=("train", "test"), progress=progress)
  return source._replace(first_test_row=None) if config.test_part == "pooled" else source


def _read_train(config: Any, progress: Progress, *, name: str) -> Source:
  return read_tfds(name, config.path, parts=("train",), progress=progress)


# path "" is TFDS_DATA_DIR or TFDS's own default.
_TEST_PART = {"test_part": ("official", "pooled")}
CIFAR10 = Reader(
  functools.partial(_read_official_or_pooled, name="cifar10"),
  {"path": "", "test_part": "official"},
  _TEST_PART,
)
SVHN = Reader(
  functools.partial(_read_official_or_pooled, name="svhn_cropped"),
  {"path": "", "test_part": "official"},
  _TEST_PART,
)
EUROSAT = Reader(functools.partial(_read_train, name="eurosat/rgb"), {"path": ""})
