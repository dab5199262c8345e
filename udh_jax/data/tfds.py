"""Data sets prepared by tensorflow-datasets, read without TensorFlow."""

import io
import os
import re
from collections.abc import Callable, Sequence

import numpy as np

from udh_jax.data.dataset import Source
from udh_jax.data.images import DecodedImages
from udh_jax.errors import InputError, require


def read_tfds(
  name: str, data_dir: str, *, parts: Sequence[str], progress: Callable[[int, int], None]
) -> Source:
  """Reads a prepared data set: labels at once, pictures when they are asked for.

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
  import tensorflow_datasets as tfds

  builder = tfds.builder_from_directory(_prepared_directory(name, data_dir))
  records = []
  total = sum(builder.info.splits[part].num_examples for part in parts)
  first_test_row = None
  for part in parts:
    if part != parts[0]:
      first_test_row = len(records)
    # Pictures stay encoded here: parsing alone takes a fifth of the time.
    source = builder.as_data_source(split=part, decoders={"image": tfds.decode.SkipDecoding()})
    for start in range(0, len(source), 1000):
      records += source.__getitems__(range(start, min(start + 1000, len(source))))
      progress(len(records), total)

  from PIL import Image

  # The field that names a record is "id" in CIFAR-10 and "filename" in EuroSAT.
  field = "id" if "id" in builder.info.features else "filename"

  def decode(row: int) -> np.ndarray:
    try:
      with Image.open(io.BytesIO(records[row]["image"])) as image:
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
      raise InputError(
        f"Image {records[row][field].decode()} of {name} cannot be decoded ({error}); "
        "remove the data set's folder and prepare it again."
      ) from error

  shape = builder.info.features["image"].shape
  return Source(
    images=DecodedImages(decode, len(records), shape),
    image_shape=shape,
    names=[record[field].decode() for record in records],
    labels=np.array([record["label"] for record in records], np.int32),
    class_names=builder.info.features["label"].names,
    first_test_row=first_test_row,
  )


def _prepared_directory(name: str, data_dir: str) -> str:
  """The newest version of a prepared data set, or an error that says how to prepare one."""
  from etils import epath

  root = epath.Path(
    data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
  ).expanduser()
  folder = root / name
  versions = [
    (tuple(map(int, path.name.split("."))), path)
    for path in (folder.iterdir() if folder.is_dir() else ())
    if re.fullmatch(r"\d+\.\d+\.\d+", path.name) and (path / "dataset_info.json").exists()
  ]
  arguments = f"{name!r}, data_dir={os.fspath(root)!r}, file_format='array_record'"
  command = (
    'python -c "import tensorflow_datasets as tfds; '
    f'tfds.builder({arguments}).download_and_prepare()"'
  )
  if not versions:
    raise InputError(
      f"No prepared data set {name} in {root} (looked for {folder}/VERSION/dataset_info.json); "
      f"set data.path or TFDS_DATA_DIR to where it is, or prepare it with: {command}"
    )
  chosen = max(versions)[1]
  require(
    any("array_record" in path.name for path in chosen.iterdir()),
    f"{chosen} holds no ArrayRecord file, the one format with random access; remove the folder and "
    f"prepare it with: {command}",
  )
  return os.fspath(chosen)
