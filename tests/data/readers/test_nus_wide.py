"""NUS-WIDE in its official layout."""

import collections
import logging

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


CONCEPTS = [f"concept{number:02}" for number in range(24)]


def top_concepts(concepts_of, count):
  counts = collections.Counter(concept for found in concepts_of.values() for concept in found)
  return sorted(sorted(CONCEPTS, key=lambda concept: (-counts[concept], concept))[:count])


@pytest.mark.parametrize(("selection", "count"), [("tc10", 10), ("tc21", 21)])
def test_nus_wide_takes_pictures_of_the_most_frequent_concepts(nus, caplog, selection, count):
  root, concepts_of, tags_of = nus
  top = top_concepts(concepts_of, count)
  names = [name for name in concepts_of if concepts_of[name] & set(top)]
  assert 20 < len(names) < 80 and ("concept03" in top)
  assert ("concept04" in top) == (count == 21)  # as many pictures as 03, but later by name
  dataset = load("nus_wide", root, selection=selection)
  assert list(dataset.names) == names and dataset.class_names == top
  expected = [[concept in concepts_of[name] for concept in top] for name in names]
  assert dataset.labels.tolist() == expected and dataset.labels.dtype == bool
  assert dataset.texts.tolist() == [tags_of[name] for name in names]
  assert dataset.texts.dtype == bool and list(dataset.words) == [f"tag{i}" for i in range(13)]
  assert not all(any(tags_of[name]) for name in names) and not warnings_of(caplog)
  picture = (root / "Flickr" / names[7]).read_bytes()
  assert (dataset.images[7] == decode_picture(picture, 16)).all()


def test_nus_wide_pictures_without_tags_may_be_left_out_or_refused(nus, caplog):
  root, concepts_of, tags_of = nus
  top = set(top_concepts(concepts_of, 10))
  chosen = [name for name in concepts_of if concepts_of[name] & top]
  tagged = [name for name in chosen if any(tags_of[name])]
  dataset = load("nus_wide", root, on_unpaired="skip")
  assert list(dataset.names) == tagged and dataset.texts.any(axis=1).all()
  less = len(chosen) - len(tagged)
  expected = f"{less} of {len(chosen)} pictures are left out: {less} have no tag"
  assert warnings_of(caplog) == [expected]
  with pytest.raises(InputError, match=f"Of {len(chosen)} pictures, {less} have no tag"):
    load("nus_wide", root, on_unpaired="refuse")


def test_nus_wide_without_labels_can_be_trained_on(nus, caplog):
  root, concepts_of, _ = nus
  (root / "Groundtruth").rename(root / "away")
  dataset = load("nus_wide", root)
  assert dataset.labels is None and list(dataset.names) == list(concepts_of)
  assert len(dataset.splits.query) == 0 and len(dataset.splits.train) == 10
  (message,) = warnings_of(caplog)
  assert "holds no Groundtruth/AllLabels/Labels_*.txt" in message and "scored" in message


def test_nus_wide_names_of_tags_are_not_needed(nus):
  root, _, _ = nus
  (root / "NUS_WID_Tags" / "TagList1k.txt").unlink()
  assert list(load("nus_wide", root).words) == []


def test_nus_wide_finds_files_without_the_folders_of_their_archives(nus):
  root, _, _ = nus
  before = load("nus_wide", root).digest
  (root / "Groundtruth" / "AllLabels").rename(root / "AllLabels")
  (root / "Flickr").rename(root / "images")
  for file in (root / "NUS_WID_Tags").iterdir():
    file.rename(root / file.name)
  (root / "ImageList" / "Imagelist.txt").rename(root / "Imagelist.txt")
  text = (root / "Imagelist.txt").read_text().splitlines()
  prefixed = "".join(f"C:\\ImageData\\Flickr\\{line}\n" for line in text)
  (root / "Imagelist.txt").write_text(prefixed)
  assert load("nus_wide", root).digest == before


def cut(path, lines):
  path.write_text("".join(path.read_text().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda root: cut(root / "NUS_WID_Tags/AllTags1k.txt", 79), r"1k\.txt has 79 lines, .* 80"),
    (
      lambda root: cut(root / "Groundtruth/AllLabels/Labels_concept07.txt", 5),
      r"Labels_concept07\.txt has 5 lines, but .*Imagelist\.txt names 80",
    ),
    (lambda root: cut(root / "ImageList/Imagelist.txt", 50), r"has 80 lines, but .* names 50"),
    (lambda root: cut(root / "ImageList/Imagelist.txt", 0), "names no picture"),
    (lambda root: cut(root / "NUS_WID_Tags/TagList1k.txt", 12), r"names 12 tags, .* 13 columns"),
    (
      lambda root: (root / "Groundtruth/AllLabels/Labels_concept07.txt").unlink(),
      r"lacks Labels_\*\.txt of 1 concepts .*concept07",
    ),
    (
      lambda root: (root / "Groundtruth/AllLabels/Labels_concept07.txt").write_text("0 1\n" * 80),
      "has 2 values a line; one is expected",
    ),
    (lambda root: (root / "ImageList/Imagelist.txt").unlink(), "holds no ImageList/Imagelist"),
    (lambda root: (root / "NUS_WID_Tags/AllTags1k.txt").unlink(), r"holds no NUS_WID_Tags/AllT"),
    (lambda root: (root / "Flickr").rename(root / "x"), "holds none of the folders Flickr, images"),
  ],
)  # fmt: skip
def test_nus_wide_files_that_do_not_fit_together_are_refused(nus, damage, message):
  root, _, _ = nus
  damage(root)
  with pytest.raises(InputError, match=message) as error:
    load("nus_wide", root)
  assert "\n" not in str(error.value)


def test_nus_wide_invalid_fields_are_refused(nus, tmp_path):
  root, _, _ = nus
  for field in ("selection", "on_unpaired"):
    with pytest.raises(InputError, match=f"data field {field} is 'tc11'; choose one of"):
      load("nus_wide", root, **{field: "tc11"})
  for path, message in {"": "needs a folder", str(tmp_path / "no"): "is not a folder"}.items():
    with pytest.raises(InputError, match=message):
      load("nus_wide", path)
  (root / "ConceptsList" / "Concepts81.txt").unlink()
  for concept in CONCEPTS[:4]:
    (root / "Groundtruth" / "AllLabels" / f"Labels_{concept}.txt").unlink()
  with pytest.raises(InputError, match="labels of 20 concepts, 21 are to be selected"):
    load("nus_wide", root, selection="tc21")
