import collections
import logging
import subprocess
import sys

import numpy as np
import pytest

from udh_jax.data.pictures import decode_picture
from udh_jax.data.readers import nus_wide
from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError

SMALL = {"num_queries": 6, "num_validation": 5, "num_train": 10, "image_size": 16}


def load(name, path, **fields):
  config = data_config(name)
  config.update({**SMALL, "path": str(path), **fields})
  return load_dataset(config)


def warnings_of(caplog):
  return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


# MIRFLICKR-25K


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


# NUS-WIDE

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


@pytest.mark.parametrize("block", [1, 7, 64, 4 << 20])
@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_indicators_are_read_across_blocks(rng, tmp_path, monkeypatch, block, end):
  monkeypatch.setattr(nus_wide, "_BLOCK_BYTES", block)
  values = rng.random((9, 5)) < 0.5
  lines = ["\t".join(f"{value:d}" for value in row) + "\t" for row in values]
  lines.insert(4, "")
  path = tmp_path / "tags.txt"
  path.write_bytes(((end or "\n").join(lines) + end).encode())
  kept = rng.random(9) < 0.6
  found = nus_wide.read_indicators(path, kept, "list.txt")
  assert found.dtype == bool and found.tolist() == values[kept].tolist()
  for other in (8, 10):
    with pytest.raises(InputError, match=rf"tags\.txt has 9 lines, but list\.txt names {other} "):
      nus_wide.read_indicators(path, np.ones(other, bool), "list.txt")


@pytest.mark.parametrize("block", [3, 4 << 20])
@pytest.mark.parametrize("bad", ["0 1 2", "0 1", "0 1 0 1", "01 0", "0 10 1", "0 -1 1", "0 1 x"])
def test_a_line_that_is_not_zeros_and_ones_is_named(tmp_path, monkeypatch, bad, block):
  monkeypatch.setattr(nus_wide, "_BLOCK_BYTES", block)
  (tmp_path / "a.txt").write_text(f"0 1 1\n0 0 1\n\n{bad}\n1 1 1\n")
  with pytest.raises(InputError, match=r"a\.txt line 4 is not 3 values 0 or 1"):
    nus_wide.read_indicators(tmp_path / "a.txt", np.ones(4, bool), "list.txt")


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


def test_nus_wide_fields_without_sense_are_refused(nus, tmp_path):
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


# The same by way of tensorflow-datasets


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
