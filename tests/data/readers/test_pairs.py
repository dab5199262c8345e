import json

import numpy as np
import pytest
from PIL import Image

from udh_jax.data.readers import pairs
from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(path, seed):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(seed).integers(0, 256, (20, 20, 3), np.uint8)
  Image.fromarray(pixels).save(path)


def table(folder, rows, name="t.jsonl"):
  """Writes rows of (image, text, label) and returns the table's path."""
  keys = ("image", "text", "label", "split")
  lines = [json.dumps(dict(zip(keys, row, strict=False))) for row in rows]
  (folder / name).write_text("\n".join(lines))
  return folder / name


def load(path, **fields):
  config = data_config("pairs")
  config.update(
    path=str(path), image_size=16, label_column="label", num_queries=4, min_word_count=1
  )
  config.update(fields)
  return load_dataset(config)


@pytest.fixture
def plain(tmp_path):
  rows = []
  for i in range(12):
    picture(tmp_path / f"p/{i}.png", i)
    rows.append((f"p/{i}.png", f"Word{i % 3} common t{i}", "ab"[i % 2]))
  return rows


def test_a_table_becomes_pictures_words_and_labels(tmp_path, plain):
  data = load(table(tmp_path, plain))
  assert len(data.images) == 12 and data.image_shape == (16, 16, 3)
  assert data.labels.tolist() == [0, 1] * 6 and data.class_names == ["a", "b"]
  assert data.captions[4] == "Word1 common t4" and data.tokenizer == "icu"
  assert data.words[0] == "common" and data.texts[:, 0].all()
  assert len(data.splits.query) == 4 and not set(data.splits.query) & set(data.splits.database)
  # The vocabulary is that of the training rows: words of a query alone are not in it.
  own = {f"t{row}" for row in data.splits.query}
  assert not own & set(data.words) and {f"t{row}" for row in data.splits.train} <= set(data.words)
  assert any("vocabulary: 12 of the 12 words of 8 training texts" in note for note in data.notes)


def test_pictures_may_lie_anywhere(tmp_path, plain):
  (tmp_path / "tables").mkdir()
  rows = [plain[0], (str(tmp_path / plain[1][0]), *plain[1][1:]), *plain[2:]]
  data = load(table(tmp_path / "tables", rows), folder=str(tmp_path))
  assert len(data.images) == 12
  np.testing.assert_array_equal(data.images[1], load(table(tmp_path, plain)).images[1])


def test_what_is_left_out_is_counted(tmp_path, plain, caplog):
  (tmp_path / "bad.png").write_bytes(b"no picture")
  rows = [
    *plain,
    ("gone.png", "a b", "a"),
    ("bad.png", "a b", "a"),
    ("p/0.png", " ... ", "a"),
    plain[3],
    ("p/3.png", "another caption", "b"),
  ]
  data = load(table(tmp_path, rows))
  assert len(data.images) == 13 and data.captions[-1] == "another caption"
  np.testing.assert_array_equal(data.images[12], data.images[3])
  notes = "\n".join(data.notes)
  for part in (
    "17 rows",
    "1 rows whose picture is not there (the first is gone.png): left out",
    "1 rows whose picture cannot be read (the first is bad.png): left out",
    "1 texts without a word (the first is p/0.png): left out",
    "1 rows repeat picture and text of another (the first is p/3.png): left out",
  ):
    assert part in notes
  kept = load(table(tmp_path, rows), on_empty="keep", on_duplicate="keep")
  assert len(kept.images) == 15
  for field, words in (
    ("on_missing", r'gone\.png\); .*set data\.on_missing to "skip"\.'),
    ("on_empty", "texts without a word"),
    ("on_duplicate", "repeat picture and text"),
    ("on_unreadable", "bad.png cannot be read"),
  ):
    with pytest.raises(InputError, match=words):
      load(table(tmp_path, rows), **{field: "refuse"})


def test_pictures_of_one_content_are_on_one_side(tmp_path):
  rows = []
  for i in range(40):
    picture(tmp_path / f"{i}.png", i // 4)  # four files of each content
    rows.append((f"{i}.png", f"text {i}", "ab"[i % 2]))
  for evaluate_on in ("query", "validation"):
    fields = {"num_queries": 6, "num_validation": 5, "evaluate_on": evaluate_on}
    data = load(table(tmp_path, rows), **fields)
    content = np.arange(40) // 4
    queries, database = set(content[data.splits.query]), set(content[data.splits.database])
    assert queries and database and not queries & database
    assert set(data.splits.train) <= set(data.splits.database)
    left = int(np.isin(content, list(queries)).sum()) - len(data.splits.query)
    assert f"{left:,} rows have the picture of a query: left out" in data.notes


def test_several_labels_are_separated(tmp_path, plain):
  rows = [(name, text, ["a|b", "b", "", "c | a"][i % 4]) for i, (name, text, _) in enumerate(plain)]
  data = load(table(tmp_path, rows), label_separator="|")
  assert data.class_names == ["a", "b", "c"]
  assert data.labels[:4].tolist() == [
    [True, True, False],
    [False, True, False],
    [False, False, False],
    [True, False, True],
  ]
  assert data.labels[data.splits.query].any(axis=1).all()
  assert "3 rows have no label: none of them is a query" in data.notes


def test_a_split_column_decides(tmp_path, plain):
  parts = ["train"] * 5 + ["database"] * 2 + ["val"] * 2 + ["Test"] * 3
  rows = [(*row, part) for row, part in zip(plain, parts, strict=True)]
  path = table(tmp_path, rows)
  splits = load(path, split_column="split", num_queries=9).splits
  assert splits.query.tolist() == [9, 10, 11] and splits.database.tolist() == list(range(7))
  assert splits.train.tolist() == list(range(5))
  data = load(path, split_column="split", evaluate_on="validation")
  assert data.splits.query.tolist() == [7, 8] and data.splits.database.tolist() == list(range(7))
  assert not any("not used" in note for note in data.notes)
  notes = load(path, split_column="split", num_queries=2).notes
  assert "2 of the 3 test items are queries (data.num_queries), the others are not used" in notes
  unused = "2 validation items are not used: data.evaluate_on=validation makes them queries"
  assert unused in notes
  with pytest.raises(InputError, match="row 1 has 'Word0 common t0' in the column 'text'"):
    load(path, split_column="text")


def test_texts_may_be_features(tmp_path, plain, rng):
  features = rng.normal(size=(12, 5)).astype(np.float32)
  np.save(tmp_path / "f.npy", features)
  data = load(table(tmp_path, plain), text_features="f.npy", text_column="")
  np.testing.assert_array_equal(data.texts, features)
  assert data.words == () and data.tokenizer == ""
  for i, row in enumerate(features):
    np.save(tmp_path / f"p/{i}.npy", row)
  rows = [(*row, f"p/{i}.npy") for i, row in enumerate(plain)]
  again = load(table(tmp_path, rows), text_features="split")
  np.testing.assert_array_equal(again.texts, features)
  np.save(tmp_path / "f.npy", features[:3])
  with pytest.raises(InputError, match=r"f\.npy has the shape \(3, 5\); .* 12 rows"):
    load(table(tmp_path, plain), text_features="f.npy")
  (tmp_path / "empty.npy").write_bytes(b"")
  for name in ("gone", "empty"):
    with pytest.raises(InputError, match=rf"{name}\.npy cannot be read as an \.npy file"):
      load(table(tmp_path, plain), text_features=f"{name}.npy")
  np.savez(tmp_path / "several.npz", f=features)
  (tmp_path / "several.npz").rename(tmp_path / "several.npy")
  with pytest.raises(InputError, match=r"several\.npy is an archive of several arrays"):
    load(table(tmp_path, plain), text_features="several.npy")


def test_unknown_columns_and_policies_are_refused(tmp_path, plain):
  path = table(tmp_path, plain)
  with pytest.raises(InputError, match="no column 'caption'; it has 'image', 'text', 'label'"):
    load(path, text_column="caption")
  with pytest.raises(InputError, match="on_missing is 'keep'; choose one of skip, refuse"):
    load(path, on_missing="keep")
  with pytest.raises(InputError, match=r"set data\.path"):
    load("")


def test_a_column_that_is_no_path_is_pictures_that_are_missing(tmp_path, plain):
  """A caption is longer than names of files may be."""
  rows = [("caption " * 40, text, label) for _, text, label in plain[:2]]
  data = load(table(tmp_path, [*plain, *rows]))
  assert len(data.images) == 12
  assert any("2 rows whose picture is not there" in note for note in data.notes)
  with pytest.raises(InputError, match="no row is left: 2 rows whose picture is not there"):
    load(table(tmp_path, rows))


def test_a_picture_that_vanishes_while_a_table_is_read_is_one_line(tmp_path, plain, monkeypatch):
  opened = pairs.open_pictures

  def open_pictures(*args, **options):
    found = opened(*args, **options)
    (tmp_path / "p" / "3.png").unlink()
    return found

  monkeypatch.setattr(pairs, "open_pictures", open_pictures)
  with pytest.raises(InputError, match=r"3\.png cannot be read any more .*start again"):
    load(table(tmp_path, plain))
