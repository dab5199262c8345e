"""Small data sets made on the spot, in the formats of the real ones."""

import io
import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
  """Keeps notes on picture files out of the home folder."""
  folder = tmp_path_factory.mktemp("cache")
  monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
  return folder


@pytest.fixture
def save_picture(rng):
  """Writes random pictures; they are smooth, so that JPEG keeps them nearly as they are."""

  def save(path, width=40, height=30, mode="RGB", **options):
    small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((width, height), Image.BICUBIC).convert(mode)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return image

  return save


@pytest.fixture
def write_tfds(tmp_path, rng):
  """Writes a TFDS data directory as `download_and_prepare` would, without TensorFlow."""

  def write(name, sizes, *, side, field, class_names, version="2.0.0"):
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

    folder = tmp_path / "tfds" / name / version
    folder.mkdir(parents=True)
    features = {
      "image": tfds.features.Image(shape=(side, side, 3)),
      "label": tfds.features.ClassLabel(names=class_names),
      **({field: tfds.features.Text()} if field else {}),  # SVHN's records have no name
    }
    tfds.features.FeaturesDict(features).save_metadata(folder)
    tfds.features.FeaturesDict(features).save_config(folder)
    stem = name.split("/")[0]
    pictures = {}
    for part, labels in sizes.items():
      file = folder / f"{stem}-{part}.array_record-00000-of-00001"
      writer = ArrayRecordWriter(str(file), "group_size:1")
      pictures[part] = rng.integers(0, 256, (len(labels), side, side, 3), dtype=np.uint8)
      for row, label in enumerate(labels):
        png = io.BytesIO()
        Image.fromarray(pictures[part][row]).save(png, "PNG")
        text = {"image": png.getvalue()}
        if field:
          text[field] = f"{part}_{row}".encode()
        record = {
          key: tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[value]))
          for key, value in text.items()
        }
        number = tf_feature_pb2.Int64List(value=[int(label)])
        record["label"] = tf_feature_pb2.Feature(int64_list=number)
        example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=record))
        writer.write(example.SerializeToString())
      writer.close()
    info = {
      "name": stem,
      "version": version,
      "fileFormat": "array_record",
      "splits": [
        {
          "name": part,
          "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
          "numBytes": "1",
          "shardLengths": [str(len(labels))],
        }
        for part, labels in sizes.items()
      ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return tmp_path / "tfds", pictures

  return write
