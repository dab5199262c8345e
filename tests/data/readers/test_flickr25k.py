"""MIRFLICKR-25K in its official layout."""

import collections
import logging

import numpy as np
import pytest

from udh_jax.data.pictures import decode_picture
from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError

SMALL = {"num_queries": 6, "num_validation": 5, "num_train": 10, "image_size": 16}


def load(name, path, **fields):
  config = data_config(name)
  config.update({**SMALL, "path": str(path), **fields})
  return load_dataset(config)


def warnings_of(caplog):
  return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


def expected_pairs(tags, labels, least):
  """Vocabulary and pairs, computed another way."""
  counts = collections.Counter(tag for found in tags.values() for tag in found)
  words = sorted(tag for tag in counts if counts[tag] >= least)
  words.sort(key=lambda tag: -counts[tag])
  rows = {}
  for number in sorted(tags):
    has = [word in tags[number] for word in words]
    classes = [number in labels[name] for name in sorted(labels)]
    rows[f"im{number}.jpg"] = has, classes
  return words, rows


@pytest.mark.parametrize("least", [5, 12, 18])
def test_mirflickr_pairs_have_a_frequent_tag_and_a_label(mirflickr, caplog, least):
  root, tags, labels = mirflickr
  words, rows = expected_pairs(tags, labels, least)
  pairs = {name: row for name, row in rows.items() if any(row[0]) and any(row[1])}
  assert 0 < len(words) < 9 and 20 < len(pairs) < 60
  dataset = load("mirflickr25k", root, min_tag_count=least)
  assert list(dataset.words) == words
  assert list(dataset.names) == list(pairs)
  assert dataset.texts.dtype == dataset.labels.dtype == bool
  assert dataset.texts.tolist() == [has for has, _ in pairs.values()]
  assert dataset.labels.tolist() == [classes for _, classes in pairs.values()]
  assert dataset.class_names == ["animals", "sea", "tree"]
  untagged = sum(not found for found in tags.values())
  untexted = sum(not any(has) for has, _ in rows.values()) - untagged
  unlabelled = sum(not any(classes) for _, classes in rows.values())
  (message,) = warnings_of(caplog)
  assert f"{60 - len(pairs)} of 60 pictures are left out: {untagged} have no tag" in message
  assert (f"{untexted} have none of the {len(words)} tags" in message) == (untexted > 0)
  assert f"{unlabelled} have no label" in message
  row = len(pairs) - 1
  picture = (root / "mirflickr" / dataset.names[row]).read_bytes()
  assert (dataset.images[row] == decode_picture(picture, 16)).all()


def test_tags_of_one_count_are_ordered_by_name(mirflickr):
  root, _, _ = mirflickr
  ties = [f"tie{number}" for number in (5, 2, 8, 1, 9, 4, 7)]
  for file in (root / "mirflickr" / "meta" / "tags").iterdir():
    file.write_text("\n".join([file.read_text(), *ties]))
  words = load("mirflickr25k", root, min_tag_count=1).words
  assert list(words[:7]) == sorted(ties)


def test_a_tag_on_just_enough_pictures_is_in_the_vocabulary(mirflickr):
  root, tags, _ = mirflickr
  count = sum("nikon" in found for found in tags.values())
  assert "nikon" in load("mirflickr25k", root, min_tag_count=count).words
  assert "nikon" not in load("mirflickr25k", root, min_tag_count=count + 1).words


def test_unpaired_pictures_may_be_kept_or_refused(mirflickr, caplog):
  root, tags, labels = mirflickr
  dataset = load("mirflickr25k", root, min_tag_count=5, on_unpaired="keep")
  assert len(dataset.images) == len(dataset.texts) == 60 and not warnings_of(caplog)
  assert dataset.texts.tolist() == [has for has, _ in expected_pairs(tags, labels, 5)[1].values()]
  assert dataset.labels[dataset.splits.query].any(axis=1).all()
  with pytest.raises(InputError, match=r"Of 60 pictures, \d+ have no tag, .*have no label; comp"):
    load("mirflickr25k", root, min_tag_count=5, on_unpaired="refuse")


def test_tag_files_without_a_picture_are_counted_and_not_used(mirflickr, caplog):
  root, _, _ = mirflickr
  before = load("mirflickr25k", root, min_tag_count=5)
  caplog.clear()
  for number in range(900, 930):
    path = root / "mirflickr" / "meta" / "tags" / f"tags{number}.txt"
    path.write_text("stray\n")
  after = load("mirflickr25k", root, min_tag_count=5)
  assert after.words == before.words and after.digest == before.digest
  (message,) = warnings_of(caplog)
  assert "30 tag files have no picture" in message
  with pytest.raises(InputError, match="30 tag files have no picture"):
    load("mirflickr25k", root, min_tag_count=5, on_unpaired="refuse")


def test_without_annotations_there_are_pairs_without_labels(mirflickr, caplog):
  root, tags, labels = mirflickr
  for file in (root / "mirflickr25k_annotations_v080").iterdir():
    file.unlink()
  with pytest.raises(InputError, match=r"annotations_v080/\*\.txt"):  # half unpacked
    load("mirflickr25k", root, min_tag_count=5)
  (root / "mirflickr25k_annotations_v080").rmdir()
  dataset = load("mirflickr25k", root, min_tag_count=5)
  assert dataset.labels is None and dataset.class_names == []
  _, rows = expected_pairs(tags, labels, 5)
  assert list(dataset.names) == [name for name, (has, _) in rows.items() if any(has)]
  assert len(dataset.splits.query) == 0 and len(dataset.splits.train) == 10
  assert any("nothing can be scored" in message for message in warnings_of(caplog))
  with pytest.raises(InputError, match=r"annotations_v080/\*\.txt"):  # labels are all it is for
    load("flickr25k", root)


def test_an_unreadable_picture_takes_its_tags_and_labels_with_it(mirflickr):
  root, _, _ = mirflickr
  before = load("mirflickr25k", root, min_tag_count=5)
  file = root / "mirflickr" / before.names[3]
  file.write_bytes(file.read_bytes()[:200])
  after = load("mirflickr25k", root, min_tag_count=5)
  assert list(after.names) == [name for name in before.names if name != file.name]
  assert (after.texts == np.delete(before.texts, 3, axis=0)).all()
  assert (after.labels == np.delete(before.labels, 3, axis=0)).all()


def test_a_mirflickr_folder_that_is_not_one_is_refused(mirflickr, tmp_path):
  root, _, _ = mirflickr
  with pytest.raises(InputError, match=r"most frequent one is on \d+\); lower min_tag_count"):
    load("mirflickr25k", root, min_tag_count=61)
  with pytest.raises(InputError, match="data field min_tag_count is 0"):
    load("mirflickr25k", root, min_tag_count=0)
  (root / "mirflickr" / "meta" / "tags").rename(tmp_path / "elsewhere")
  with pytest.raises(InputError, match=r"holds no tags: looked for tags1\.txt"):
    load("mirflickr25k", root)
  (tmp_path / "elsewhere").rename(root / "tags")
  assert len(load("mirflickr25k", root, min_tag_count=5).words) > 0
  for path, message in {"": "needs a folder", str(tmp_path / "no"): "is not a folder"}.items():
    with pytest.raises(InputError, match=message):
      load("mirflickr25k", path)
  (tmp_path / "empty").mkdir()
  with pytest.raises(InputError, match=r"holds no pictures im1\.jpg"):
    load("mirflickr25k", tmp_path / "empty")


def test_the_real_mirflickr_needs_its_tags(shared):
  with pytest.raises(InputError, match="holds no tags"):
    load("mirflickr25k", shared / "data" / "mirflickr1k")


def test_the_real_mirflickr(shared):
  folder = shared / "data" / "mirflickr1k"
  config = data_config("flickr25k")
  config.update(path=str(folder), num_queries=100, num_train=400, image_size=64)
  dataset = load_dataset(config)
  assert dataset.labels.shape == (1000, 24) and dataset.labels.dtype == bool
  assert (~dataset.labels.any(axis=1)).sum() == 19
  assert [len(part) for part in dataset.splits] == [400, 900, 100]
  assert dataset.labels[dataset.splits.query].any(axis=1).all()
  assert dataset.names[0] == "im1.jpg" and dataset.names[999] == "im1000.jpg"
  sea = {int(line) for line in (folder / "annotations_v080" / "sea.txt").read_text().split()}
  column = dataset.class_names.index("sea")
  assert {row + 1 for row in np.flatnonzero(dataset.labels[:, column])} == sea
  assert dataset.images[999].shape == (64, 64, 3)
  with pytest.raises(InputError, match="num_queries is 2000, but half of the 981 images"):
    config.num_queries = 2000
    load_dataset(config)
