"""Builders make of the official files what the readers find in them."""

import subprocess
import sys

import numpy as np
import pytest

from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError

SMALL = {"num_queries": 6, "num_validation": 5, "num_train": 10, "image_size": 16}


def load(name, path, **fields):
  config = data_config(name)
  config.update({**SMALL, "path": str(path), **fields})
  return load_dataset(config)


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


CONCEPTS = [f"concept{number:02}" for number in range(24)]


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
  for column, concept in enumerate(CONCEPTS):
    lines = "".join(f"{value:d}\n" for value in has[:, column])
    write(f"Groundtruth/AllLabels/Labels_{concept}.txt", lines)
  write("ConceptsList/Concepts81.txt", "\n".join(CONCEPTS))
  matrix = "".join("".join(f"{value:d}\t" for value in row) + "\n" for row in tags)
  write("NUS_WID_Tags/AllTags1k.txt", matrix)
  write("NUS_WID_Tags/TagList1k.txt", "".join(f"tag{column}\n" for column in range(13)))
  concepts_of = {
    name: {concept for concept, value in zip(CONCEPTS, row, strict=True) if value}
    for name, row in zip(names, has, strict=True)
  }
  return root, concepts_of, dict(zip(names, tags.tolist(), strict=True))


def prepare(name, manual_dir, data_dir, **options):
  pytest.importorskip("tensorflow")
  import tensorflow_datasets as tfds

  from udh_jax.data import builders

  builder = getattr(builders, name)(data_dir=data_dir, file_format="array_record", **options)
  config = tfds.download.DownloadConfig(manual_dir=manual_dir)
  builder.download_and_prepare(download_config=config)


def check_same(files, prepared):
  assert prepared.digest == files.digest and prepared.protocol == files.protocol
  assert list(prepared.words) == list(files.words)
  assert list(prepared.class_names) == list(files.class_names)
  assert prepared.texts.dtype == bool and (prepared.texts == files.texts).all()
  for row in range(len(files.images)):
    assert (prepared.images[row] == files.images[row]).all()


def test_a_prepared_mirflickr_is_the_one_in_the_files(mirflickr, tmp_path, rng):
  root, _, _ = mirflickr
  tags = root / "mirflickr" / "meta" / "tags"
  for file in tags.iterdir():  # the builder asks for twenty pictures a tag
    file.write_text(file.read_text() + rng.choice(["common\n", "often\n"]))
  broken = next((root / "mirflickr").glob("im*.jpg"))
  broken.write_bytes(broken.read_bytes()[:100])
  prepare("Mirflickr25k", root, tmp_path / "tfds")
  files, prepared = (load("mirflickr25k", path) for path in (root, tmp_path / "tfds"))
  check_same(files, prepared)
  assert broken.name not in prepared.names and len(prepared.words) > 1
  assert prepared.labels.dtype == bool and (prepared.labels == files.labels).all()
  with pytest.raises(InputError, match=r"min_tag_count 20, but the data field .* is 5; set it to"):
    load("mirflickr25k", tmp_path / "tfds", min_tag_count=5)


def test_a_prepared_nus_wide_is_the_one_in_the_files(nus, tmp_path):
  root, _, _ = nus
  prepare("NusWide", root, tmp_path / "tfds", config="tc21")
  files, prepared = (load("nus_wide", path, selection="tc21") for path in (root, tmp_path / "tfds"))
  check_same(files, prepared)
  assert (prepared.labels == files.labels).all() and prepared.labels.shape[1] == 21
  with pytest.raises(InputError, match="holds no ImageList"):  # of tc10 nothing is prepared
    load("nus_wide", tmp_path / "tfds")
  code = (
    "import sys; from udh_jax.data.registry import data_config, load_dataset; "
    f"c = data_config('nus_wide'); c.path = {str(tmp_path / 'tfds')!r}; c.selection = 'tc21'; "
    "c.num_queries = c.num_train = 5; load_dataset(c).images[3]; "
    "assert not {'tensorflow', 'udh_jax.data.builders'} & set(sys.modules)"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_a_set_without_labels_is_prepared_without_labels(nus, tmp_path):
  root, _, _ = nus
  (root / "Groundtruth").rename(root / "away")
  prepare("NusWide", root, tmp_path / "tfds", config="tc10")
  files, prepared = (load("nus_wide", path) for path in (root, tmp_path / "tfds"))
  check_same(files, prepared)
  assert prepared.labels is None is files.labels


def test_a_builder_says_what_has_to_be_fetched_by_hand(tmp_path):
  with pytest.raises(AssertionError, match=r"press\.liacs\.nl/mirflickr"):
    prepare("Mirflickr25k", tmp_path / "nothing", tmp_path / "tfds")
