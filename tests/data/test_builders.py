"""Builders make of the official files what the readers find in them."""

import subprocess
import sys

import pytest

from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError

SMALL = {"num_queries": 6, "num_validation": 5, "num_train": 10, "image_size": 16}


def load(name, path, **fields):
  config = data_config(name)
  config.update({**SMALL, "path": str(path), **fields})
  return load_dataset(config)


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
