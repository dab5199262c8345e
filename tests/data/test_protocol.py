import json

import numpy as np
import pytest

from udh_jax.data.protocol import (
  DATABASE,
  QUERY,
  TRAIN,
  VALIDATION,
  Splits,
  balanced_sample,
  make_splits,
  permutation,
  split_digest,
  write_manifest,
)
from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError

PROTOCOL = {
  "num_queries": 20,
  "num_validation": 10,
  "num_train": 0,
  "evaluate_on": "query",
  "seed": 0,
}


def test_a_permutation_holds_every_number_once_and_follows_the_seed():
  first = permutation(1000, 3, 7)
  assert sorted(first) == list(range(1000))
  assert (first == permutation(1000, 3, 7)).all()
  assert (first != permutation(1000, 3, 8)).any()
  assert (first != permutation(1000, 7, 3)).any()
  # The stream is fixed: another NumPy must not change anybody's splits.
  assert permutation(8, 0, 1).tolist() == PERMUTATION_8
  assert permutation(0, 1).shape == (0,)


DIGITS = "b621d3d6d7c6"
PERMUTATION_8 = [3, 7, 4, 2, 1, 6, 5, 0]


def test_permutations_are_uniform():
  places = np.stack([permutation(4, seed) for seed in range(4000)])
  counts = np.stack([np.bincount(column, minlength=4) for column in places.T])
  assert abs(counts - 1000).max() < 150


@pytest.mark.parametrize("count", [0, 1, 7, 30, 31, 45])
def test_balanced_sample_takes_the_same_from_each_class(rng, count):
  labels = rng.permutation(np.repeat([0, 1, 2, 5], [40, 30, 50, 25]))
  rows = balanced_sample(labels, count, 1)
  assert len(rows) == count and (np.diff(rows) > 0).all()
  sizes = [(labels[rows] == c).sum() for c in (0, 1, 2, 5)]
  assert max(sizes) - min(sizes) <= 1


def test_training_images_may_be_drawn_evenly_from_the_classes(rng):
  labels = rng.permutation(np.repeat([0, 1, 2], [100, 60, 40]))
  options = {**PROTOCOL, "num_rows": 200, "num_train": 45}
  splits = make_splits(labels, train_draw="balanced", **options)
  assert np.bincount(labels[splits.train]).tolist() == [15, 15, 15]
  assert set(splits.train) <= set(splits.database)
  again, other = (
    make_splits(labels, train_draw="balanced", **options | {"seed": seed}) for seed in (0, 1)
  )
  np.testing.assert_array_equal(again.train, splits.train)
  assert set(other.train) != set(splits.train)
  np.testing.assert_array_equal(make_splits(labels, **options).query, splits.query)
  # A small class may give all it has.
  splits = make_splits(labels, train_draw="balanced", **options | {"num_train": 120})
  sizes = np.bincount(labels[splits.train])
  assert sizes.sum() == 120 and sizes[2] == (labels[splits.database] == 2).sum()


@pytest.mark.parametrize("labels", [None, np.ones((50, 3), bool)])
def test_a_balanced_draw_needs_one_label_an_image(labels):
  options = {**PROTOCOL, "num_rows": 50, "num_train": 10, "train_draw": "balanced"}
  with pytest.raises(InputError, match="it needs one label an image: set it to 'uniform'"):
    make_splits(labels, **options)


def test_a_small_class_keeps_half_and_the_others_give_the_rest():
  labels = np.repeat([0, 1, 2], [3, 100, 100])
  sizes = np.bincount(labels[balanced_sample(labels, 41, 1)])
  assert sizes.tolist() == [1, 20, 20]
  everything = balanced_sample(labels, 101, 1)
  assert np.bincount(labels[everything]).tolist() == [1, 50, 50]
  with pytest.raises(InputError, match="102 rows"):
    balanced_sample(labels, 102, 1)


def test_queries_and_database_part_the_rows():
  labels = np.arange(200) % 7
  splits = make_splits(labels, num_rows=200, **PROTOCOL)
  assert len(splits.query) == 20
  together = np.concatenate([splits.query, splits.database])
  assert sorted(together) == list(range(200))
  assert (splits.train == splits.database).all()
  assert all(part.dtype == np.int64 for part in splits)


def test_validation_leaves_the_test_queries_out_of_sight():
  labels = np.arange(200) % 7
  test = make_splits(labels, num_rows=200, **PROTOCOL)
  options = {**PROTOCOL, "evaluate_on": "validation"}
  validation = make_splits(labels, num_rows=200, **options)
  assert len(validation.query) == 10
  assert np.isin(validation.query, test.database).all()
  assert not np.isin(test.query, np.concatenate(validation)).any()
  assert sorted([*validation.query, *validation.database]) == test.database.tolist()


def test_validation_of_an_official_test_part_is_drawn_from_the_other_part():
  labels = np.arange(300) % 5
  options = {**PROTOCOL, "evaluate_on": "validation"}
  test = make_splits(labels, num_rows=300, first_test_row=250, **PROTOCOL)
  assert test.query.tolist() == list(range(250, 270))
  assert test.database.tolist() == list(range(250))
  validation = make_splits(labels, num_rows=300, first_test_row=250, **options)
  assert np.concatenate(validation).max() < 250
  assert np.bincount(labels[validation.query]).tolist() == [2] * 5


def test_the_train_part_is_drawn_from_the_database():
  options = {**PROTOCOL, "num_train": 50}
  splits = make_splits(np.arange(200) % 7, num_rows=200, **options)
  assert len(set(splits.train)) == 50
  assert np.isin(splits.train, splits.database).all()
  other = make_splits(np.arange(200) % 7, num_rows=200, **{**options, "seed": 1})
  assert (other.train != splits.train).any() and (other.query != splits.query).any()


def test_multi_label_queries_have_a_label(rng):
  labels = rng.random((200, 4)) < 0.15
  assert not labels.any(axis=1).all()
  splits = make_splits(labels, num_rows=200, **PROTOCOL)
  assert len(splits.query) == 20 and labels[splits.query].any(axis=1).all()
  assert len(splits.database) == 180


def test_without_labels_there_are_no_queries():
  for evaluate_on in ("query", "validation"):
    splits = make_splits(None, num_rows=9, **{**PROTOCOL, "evaluate_on": evaluate_on})
    assert len(splits.query) == 0 and splits.database.tolist() == list(range(9))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_queries": 101}, "num_queries is 101"),
    ({"num_train": 181}, "num_train is 181, but the database has 180"),
    ({"evaluate_on": "validation", "num_validation": 95}, "num_validation is 95"),
  ],
)
def test_asking_for_too_many_is_refused(changes, message):
  with pytest.raises(InputError, match=message):
    make_splits(np.arange(200) % 2, num_rows=200, **{**PROTOCOL, **changes})


def test_too_few_official_test_images_are_refused():
  with pytest.raises(InputError, match="test part has 10"):
    make_splits(np.arange(200) % 2, num_rows=200, first_test_row=190, **PROTOCOL)


def test_something_has_to_be_left_to_train_on():
  with pytest.raises(InputError, match="None of 30 items is left to train on: 20 are queries"):
    make_splits(None, num_rows=30, parts=np.repeat([QUERY, DATABASE], [20, 10]), **PROTOCOL)


def test_the_digest_tells_parts_rows_and_names_apart():
  names = ["a", "b", "c", "d"]
  splits = Splits(*(np.array(rows) for rows in ([0, 1], [0, 1, 2], [3])))
  digest = split_digest(splits, names)
  assert len(digest) == 64
  assert digest == split_digest(splits, list(names))
  assert digest != split_digest(splits._replace(query=np.array([2])), names)
  assert digest != split_digest(splits, ["a", "b", "c", "e"])
  moved = Splits(splits.train, np.array([0, 1, 2, 3]), np.array([], np.int64))
  assert digest != split_digest(moved, names)


def test_the_protocol_says_where_labels_decided_what_is_trained_on():
  config = data_config("digits")
  config.num_train = 100
  assert "100 train, seed 0" in load_dataset(config).protocol
  config.train_draw = "balanced"
  assert "100 train (the same number of each class), seed 0" in load_dataset(config).protocol


def test_the_manifest_holds_the_splits_and_leaves_nothing_half_written(tmp_path, monkeypatch):
  dataset = load_dataset(data_config("digits"))
  path = tmp_path / "splits.json"
  write_manifest(dataset, path)
  manifest = json.loads(path.read_text())
  assert manifest["digest"] == dataset.digest and dataset.digest[:12] in manifest["protocol"]
  for part, rows in dataset.splits._asdict().items():
    assert manifest[part] == rows.tolist()
  assert manifest["names"] == list(dataset.names) and len(manifest["names"]) == 1797

  def fail(*args):
    raise OSError("disk full")

  monkeypatch.setattr("os.replace", fail)
  before = path.read_text()
  with pytest.raises(OSError, match="disk full"):
    write_manifest(dataset, path)
  assert path.read_text() == before and list(tmp_path.iterdir()) == [path]


def test_parts_that_the_data_name_are_kept(rng):
  parts = rng.integers(0, 4, 60).astype(np.int8)
  labels = rng.integers(0, 3, 60)
  options = {**PROTOCOL, "num_rows": 60, "fewer_queries": True, "parts": parts}
  splits = make_splits(labels, **options)
  assert splits.query.tolist() == np.flatnonzero(parts == QUERY).tolist()  # fewer than 20
  assert splits.database.tolist() == np.flatnonzero(parts <= DATABASE).tolist()
  assert splits.train.tolist() == np.flatnonzero(parts == TRAIN).tolist()
  found = make_splits(labels, **options | {"evaluate_on": "validation"})
  drawn = np.isin(np.flatnonzero(parts == VALIDATION), found.query)
  assert len(found.query) == drawn.sum() == 10
  assert found.database.tolist() == splits.database.tolist()
  with pytest.raises(InputError, match=r"num_queries is 20, but the test part has 3 images"):
    few = np.where(np.arange(60) < 3, QUERY, TRAIN)
    make_splits(labels, **options | {"parts": few, "fewer_queries": False})
  with pytest.raises(InputError, match=r"num_train is 50, but \d+ images are for training"):
    make_splits(labels, **options | {"num_train": 50})


def test_what_a_query_shows_is_not_in_the_database(rng):
  groups, labels = rng.integers(0, 25, 80), rng.integers(0, 3, 80)
  for evaluate_on in ("query", "validation"):
    options = {**PROTOCOL, "num_rows": 80, "evaluate_on": evaluate_on}
    options |= {"num_queries": 8, "num_validation": 5}
    splits = make_splits(labels, groups=groups, **options)
    assert not set(groups[splits.query]) & set(groups[splits.database])
    alone = make_splits(labels, **options)
    assert len(np.unique(groups[splits.query])) == len(splits.query) == len(alone.query)
    if evaluate_on == "query":  # all that shows none of them
      kept = ~np.isin(groups, groups[splits.query])
      assert splits.database.tolist() == np.flatnonzero(kept).tolist()
    own = make_splits(labels, groups=np.arange(80), **options)
    assert [part.tolist() for part in own] == [part.tolist() for part in alone]


def test_what_has_no_label_is_no_query_and_not_learned_from_with_labels():
  labels = np.where(np.arange(60) % 2, -1, np.arange(60) % 4 // 2)
  options = {**PROTOCOL, "num_rows": 60, "num_queries": 6, "num_train": 20}
  splits = make_splits(labels, **options, train_draw="balanced")
  assert (labels[splits.query] >= 0).all() and (labels[splits.train] >= 0).all()
  assert (labels[splits.database] < 0).any()
  with pytest.raises(InputError, match=r"num_train is 25, but 24 images .* have a label"):
    make_splits(labels, **options | {"num_train": 25}, train_draw="balanced")


def test_of_pictures_with_many_captions_at_most_half_are_asked_for():
  pictures = np.repeat(np.arange(50), 5)
  options = {**PROTOCOL, "num_rows": 250, "num_queries": 1000, "fewer_queries": True}
  splits = make_splits(pictures % 2, groups=pictures, **options)
  asked = pictures[splits.query]
  assert len(splits.query) == len(set(asked)) == 24 and (np.bincount(asked % 2) == 12).all()
  assert len(splits.database) == 250 - 24 * 5


@pytest.mark.parametrize("kind", ["classes", "several", "none"])
def test_queries_are_drawn_from_a_larger_part_that_the_data_name(kind):
  classes = np.repeat([0, 1, 2], 30)  # a table that is sorted by class
  labels = {"classes": classes, "several": np.eye(3, dtype=bool)[classes], "none": None}[kind]
  parts = np.where(np.arange(90) % 3, TRAIN, QUERY).astype(np.int8)
  options = {**PROTOCOL, "num_rows": 90, "fewer_queries": True, "num_queries": 12, "parts": parts}
  splits = make_splits(labels, **options)
  assert len(splits.query) == 12 and (parts[splits.query] == QUERY).all()
  assert (np.diff(splits.query) > 0).all() and splits.query.tolist() != list(range(0, 36, 3))
  if kind == "classes":
    assert np.bincount(classes[splits.query]).tolist() == [4, 4, 4]
  assert splits.database.tolist() == np.flatnonzero(parts == TRAIN).tolist()
  official = make_splits(labels, **options | {"fewer_queries": False})
  assert official.query.tolist() == list(range(0, 36, 3))


@pytest.mark.parametrize(
  ("rows", "percent", "kept"),
  [
    (2, 10, 1),
    (10, 10, 2),
    (300, 10, 60),
    (800, 10, 100),
    (5000, 10, 500),
    (50_000, 10, 1000),
    (300, 50, 150),
    (10, 0, 0),
    (1, 10, 0),
  ],
)
def test_some_of_the_database_is_held_out_of_the_training(rows, percent, kept):
  options = {**PROTOCOL, "num_rows": rows, "num_queries": 0}
  splits = make_splits(None, **options, held_out=percent)
  assert len(splits.database) == rows and len(splits.train) == rows - kept
  again = make_splits(None, **options | {"num_train": rows}, held_out=percent)
  assert len(again.train) == rows  # what is asked for by number goes first


def test_draws_are_those_of_published_splits():
  """Another stream for a draw would change everybody's splits; the words are written down here."""
  labels, options = np.zeros(200, int), {**PROTOCOL, "num_rows": 200, "num_train": 50, "seed": 3}
  splits = make_splits(labels, **options)
  np.testing.assert_array_equal(splits.query, np.sort(permutation(200, 3, 1)[:20]))
  order = np.sort(permutation(180, 3, 3)[:50])
  np.testing.assert_array_equal(splits.train, splits.database[order])
  found = make_splits(labels, **options | {"evaluate_on": "validation"})
  order = np.sort(permutation(180, 3, 2)[:10])
  np.testing.assert_array_equal(found.query, splits.database[order])
  balanced = make_splits(labels, **options | {"train_draw": "balanced"})
  order = np.sort(permutation(180, 3, 3)[:50])
  np.testing.assert_array_equal(balanced.train, balanced.database[order])
  assert load_dataset(data_config("digits")).digest[:12] == DIGITS
