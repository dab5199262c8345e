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


@pytest.fixture
def mirflickr(tmp_path, rng, save_picture):
  """Sixty pictures with tags and labels, in part of the pictures only.

  Returns:
    The folder, the tags of each picture by its number, and the numbers that have each label.
  """
  root = tmp_path / "mir"
  numbers = [int(number) for number in rng.permutation(np.arange(1, 200))[:60]]
  words = ["sky", "été", "new york", "nikon", "b", "a", "zoo", "rare", "once"]
  frequency = [0.5, 0.4, 0.3, 0.25, 0.2, 0.2, 0.15, 0.05, 0.02]
  tags = {
    number: [word for word, part in zip(words, frequency, strict=True) if rng.random() < part]
    for number in numbers
  }
  labels = {
    name: [number for number in numbers if rng.random() < 0.4]
    for name in ("animals", "sea", "tree")
  }
  for number in numbers:
    save_picture(root / "mirflickr" / f"im{number}.jpg", width=24, height=20)
  folder = root / "mirflickr" / "meta" / "tags"
  folder.mkdir(parents=True)
  for number, found in tags.items():
    if found or number % 2:  # a picture without tags has an empty file or none
      lines = [*found, *found[:1]]  # a tag may stand there twice
      (folder / f"tags{number}.txt").write_text("\r\n".join(lines) + "\r\n", "utf-8", newline="")
  annotations = root / "mirflickr25k_annotations_v080"
  annotations.mkdir()
  (annotations / "README.txt").write_text("not a label")
  for name, members in labels.items():
    (annotations / f"{name}.txt").write_text("".join(f"{number}\n" for number in members))
  (annotations / "sea_r1.txt").write_text("1\n")
  return root, tags, labels


NUS_WIDE_CONCEPTS = [f"concept{number:02}" for number in range(24)]


@pytest.fixture
def nus(tmp_path, rng, save_picture):
  """Eighty pictures with 24 concepts and 13 tags.

  Returns:
    The folder, the concepts of each picture by its name, and its tags.
  """
  root = tmp_path / "nus"
  names = [f"{folder}/{number:04}_{rng.integers(9**9)}.jpg" for number in range(20)
           for folder in ("actor", "zebra", "sun_set", "boats")]  # fmt: skip
  # Concepts 3 and 4 have the same number of pictures, on either side of the tenth place.
  odds = np.full(24, 0.01)
  odds[rng.permutation(np.setdiff1d(np.arange(24), [3, 4]))[:9]] = 0.2
  has = rng.random((80, 24)) < odds
  has[:, 3:5] = False
  has[:2, 3], has[2:4, 4] = True, True
  has[:4, [column for column in range(24) if column not in (3, 4)]] = False
  order = np.argsort(-has.sum(axis=0), kind="stable")
  for column in order[9:]:
    if column not in (3, 4):
      has[:, column] &= np.cumsum(has[:, column]) <= 1
  tags = rng.random((80, 13)) < 0.15
  for name in names:
    save_picture(root / "Flickr" / name, width=24, height=20)
  write = lambda path, text: (  # noqa: E731
    (root / path).parent.mkdir(parents=True, exist_ok=True),
    (root / path).write_bytes(text.encode()),
  )
  write("ImageList/Imagelist.txt", "".join(name.replace("/", "\\") + "\r\n" for name in names))
  for column, concept in enumerate(NUS_WIDE_CONCEPTS):
    lines = "".join(f"{value:d}\n" for value in has[:, column])
    write(f"Groundtruth/AllLabels/Labels_{concept}.txt", lines)
  write("ConceptsList/Concepts81.txt", "\n".join(NUS_WIDE_CONCEPTS))
  matrix = "".join("".join(f"{value:d}\t" for value in row) + "\n" for row in tags)
  write("NUS_WID_Tags/AllTags1k.txt", matrix)
  write("NUS_WID_Tags/TagList1k.txt", "".join(f"tag{column}\n" for column in range(13)))
  concepts_of = {
    name: {concept for concept, value in zip(NUS_WIDE_CONCEPTS, row, strict=True) if value}
    for name, row in zip(names, has, strict=True)
  }
  return root, concepts_of, dict(zip(names, tags.tolist(), strict=True))
