"""Sets that TFDS prepared, read without TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest

from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError


def config_of(name, **fields):
  config = data_config(name)
  config.update(fields)
  return config


@pytest.fixture
def small_cifar10(write_tfds, rng):
  labels = {"train": rng.integers(0, 3, 120), "test": rng.integers(0, 3, 40)}
  names = ["cat", "dog", "ship"]
  path, pictures = write_tfds(
    "cifar10", labels, side=32, field="id", class_names=names, version="3.0.2"
  )
  return str(path), labels, pictures


def test_cifar10_is_train_then_test_with_lossless_pictures(small_cifar10):
  path, labels, pictures = small_cifar10
  done = []
  dataset = load_dataset(
    config_of("cifar10", path=path, num_queries=25), progress=lambda *at: done.append(at)
  )
  both = np.concatenate([pictures["train"], pictures["test"]])
  assert len(dataset.images) == 160 and dataset.image_shape == (32, 32, 3)
  for row in (0, 119, 120, 159, 0):  # the second time from memory
    assert (dataset.images[row] == both[row]).all()
  assert (dataset.labels == np.concatenate([labels["train"], labels["test"]])).all()
  assert dataset.class_names == ["cat", "dog", "ship"]
  assert dataset.names[3] == "train_3" and dataset.names[122] == "test_2"
  assert dataset.splits.query.tolist() == list(range(120, 145))
  assert dataset.splits.database.tolist() == list(range(120))
  assert done[-1] == (160, 160)
  with pytest.raises(IndexError):
    dataset.images[160]


def test_the_supervised_protocol_draws_balanced_queries_and_labelled_images_from_all(
  small_cifar10,
):
  path, _, _ = small_cifar10
  fields = {"path": path, "num_queries": 30, "num_train": 45, "test_part": "pooled"}
  dataset = load_dataset(config_of("cifar10", train_draw="balanced", **fields))
  train, database, query = dataset.splits
  assert np.bincount(dataset.labels[query]).tolist() == [10, 10, 10]
  assert np.bincount(dataset.labels[train]).tolist() == [15, 15, 15]
  assert sorted([*database, *query]) == list(range(160))
  assert set(train) <= set(database)
  assert (query >= 120).any() and (database >= 120).any()  # of both parts
  uniform = load_dataset(config_of("cifar10", **fields))
  np.testing.assert_array_equal(uniform.splits.query, query)
  assert (uniform.splits.train != train).any()
  with pytest.raises(InputError, match="choose one of official, pooled"):
    load_dataset(config_of("cifar10", path=path, test_part="both"))


def test_svhn_has_no_names_and_its_queries_come_from_the_test_part(write_tfds, rng):
  labels = {"train": rng.integers(0, 10, 300), "test": rng.integers(0, 10, 50)}
  path, pictures = write_tfds(
    "svhn_cropped", labels, side=32, field=None, class_names=list("0123456789"), version="3.1.0"
  )
  fields = {"path": str(path), "num_queries": 20, "num_train": 100, "train_draw": "balanced"}
  dataset = load_dataset(config_of("svhn", **fields))
  assert dataset.names[299] == "train_299" and dataset.names[300] == "test_0"
  assert len(set(dataset.names)) == 350
  assert dataset.splits.query.tolist() == list(range(300, 320))
  assert dataset.splits.database.tolist() == list(range(300))
  assert np.bincount(dataset.labels[dataset.splits.train]).tolist() == [10] * 10
  np.testing.assert_array_equal(dataset.images[305], pictures["test"][5])
  np.testing.assert_array_equal(dataset.labels, np.r_[labels["train"], labels["test"]])


def test_cifar10_is_read_without_tensorflow(small_cifar10):
  code = (
    "import sys; from udh_jax.data.registry import data_config, load_dataset; "
    f"c = data_config('cifar10'); c.path = {small_cifar10[0]!r}; c.num_queries = 9; "
    "load_dataset(c).images[3]; assert 'tensorflow' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def test_the_data_directory_may_come_from_the_environment(small_cifar10, monkeypatch):
  monkeypatch.setenv("TFDS_DATA_DIR", small_cifar10[0])
  assert len(load_dataset(config_of("cifar10", num_queries=5)).images) == 160


def test_a_missing_data_directory_says_what_was_looked_for_and_what_to_do(tmp_path, monkeypatch):
  empty = tmp_path / "empty"
  (empty / "cifar10" / "3.0.2").mkdir(parents=True)  # begun, never finished
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
  for path, root in {str(empty): empty, "": tmp_path / "elsewhere"}.items():
    with pytest.raises(InputError) as error:
      load_dataset(config_of("cifar10", path=path))
    message = str(error.value)
    assert f"{root}/cifar10/VERSION/dataset_info.json" in message and "\n" not in message
    command = f"tfds.builder('cifar10', data_dir='{root}', file_format='array_record')"
    assert f"{command}.download_and_prepare()" in message


def test_a_set_prepared_in_another_format_is_refused(small_cifar10, tmp_path):
  for file in (tmp_path / "tfds" / "cifar10" / "3.0.2").glob("*.array_record*"):
    file.rename(str(file).replace("array_record", "tfrecord"))
  with pytest.raises(InputError, match="no ArrayRecord file"):
    load_dataset(config_of("cifar10", path=small_cifar10[0]))


def test_a_damaged_record_is_named(write_tfds, monkeypatch):
  path, _ = write_tfds(
    "eurosat/rgb", {"train": [0, 1] * 4}, side=8, field="filename", class_names=["a", "b"]
  )
  dataset = load_dataset(config_of("eurosat", path=str(path), num_queries=2))
  monkeypatch.setattr("PIL.Image.open", lambda _: (_ for _ in ()).throw(OSError("cut short")))
  with pytest.raises(InputError, match=r"train_5 of eurosat/rgb .*cut short"):
    dataset.images[5]


def test_eurosat_draws_the_same_number_of_queries_from_each_class(write_tfds, rng):
  labels = {"train": rng.permutation(np.repeat([0, 1, 2], [20, 30, 25]))}
  names = ["AnnualCrop", "Forest", "River"]
  path, pictures = write_tfds("eurosat/rgb", labels, side=64, field="filename", class_names=names)
  dataset = load_dataset(config_of("eurosat", path=str(path), num_queries=12))
  assert np.bincount(dataset.labels[dataset.splits.query]).tolist() == [4, 4, 4]
  assert len(dataset.splits.database) == 63 and dataset.names[7] == "train_7"
  assert (dataset.images[74] == pictures["train"][74]).all()
  assert dataset.class_names == names


def test_the_newest_version_is_read(write_tfds):
  options = {"side": 8, "field": "filename", "class_names": ["a", "b"]}
  write_tfds("eurosat/rgb", {"train": [0, 1] * 4}, version="9.0.0", **options)
  path, _ = write_tfds("eurosat/rgb", {"train": [0, 1] * 6}, version="10.0.0", **options)
  assert len(load_dataset(config_of("eurosat", path=str(path), num_queries=2)).images) == 12


@pytest.mark.slow
def test_the_real_cifar10(shared):
  import tensorflow_datasets as tfds

  path = shared / "data" / "tfds"
  dataset = load_dataset(config_of("cifar10", path=str(path)))
  assert [len(part) for part in dataset.splits] == [50_000, 50_000, 1000]
  assert np.bincount(dataset.labels[:50_000]).tolist() == [5000] * 10
  source = tfds.data_source("cifar10", split="test", data_dir=path, download=False)
  for row in (0, 999):
    assert (dataset.images[50_000 + row] == source[row]["image"]).all()
    assert dataset.labels[50_000 + row] == source[row]["label"]
  validation = load_dataset(config_of("cifar10", path=str(path), evaluate_on="validation"))
  assert [len(part) for part in validation.splits] == [49_000, 49_000, 1000]
  assert max(map(np.max, validation.splits)) < 50_000
