import types

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError


def config_of(name, **fields):
  config = data_config(name)
  config.update(fields)
  return config


def load(path, name="features", **fields):
  return load_dataset(config_of(name, path=str(path), **{"num_queries": 4, **fields}))


@pytest.fixture
def arrays(rng):
  """Twelve items with classes 3, 5 and 9."""
  return {
    "image": rng.normal(size=(12, 7)),
    "text": rng.random((12, 3)),
    "label": np.tile([9, 3, 5], 4),
  }


TEST_PARTS = {"image_test": "image_test", "text_test": "text_test", "label_test": "label_test"}


@pytest.fixture
def with_test_part(arrays, rng):
  labels = {"label": np.tile([9, 3, 5], 4), "label_test": np.array([5, 4, 5, 9, 3])}
  features = {"image_test": rng.normal(size=(5, 7)), "text_test": rng.random((5, 3))}
  return {**arrays, **features, **labels}


def write_v73(path, variables):
  """As MATLAB does: a header before the HDF5 file, and each array in column-major order."""
  with h5py.File(path, "w", userblock_size=512) as file:
    references = file.create_group("#refs#")
    for name, values in variables.items():
      if scipy.sparse.issparse(values):
        columns = scipy.sparse.csc_array(values)
        group = file.create_group(name)
        group.attrs["MATLAB_sparse"] = np.uint64(columns.shape[0])
        group["data"], group["ir"], group["jc"] = columns.data, columns.indices, columns.indptr
      elif isinstance(values, list):  # a cell array of strings
        cells = []
        for position, text in enumerate(values):
          characters = np.array([[ord(character)] for character in text], np.uint16)
          cells.append(references.create_dataset(str(position), data=characters).ref)
        file.create_dataset(name, data=np.array([cells], h5py.ref_dtype), dtype=h5py.ref_dtype)
      else:
        shape = values.shape if values.ndim > 1 else (1, len(values))
        file[name] = np.ascontiguousarray(values.reshape(shape).T)
  with open(path, "r+b") as file:
    file.write(b"MATLAB 7.3 MAT-file".ljust(512))


def write_v5(path, variables):
  cells = {
    name: np.array([*values, None], object)[:-1]
    for name, values in variables.items()
    if isinstance(values, list)
  }
  scipy.io.savemat(path, {**variables, **cells})


def write_npz(path, variables):
  np.savez(path, **variables)


FORMATS = [(write_npz, "a.npz"), (write_v5, "a.mat"), (write_v73, "a.mat")]


@pytest.mark.parametrize(("write", "file"), FORMATS)
def test_every_format_gives_the_same_pairs(arrays, tmp_path, write, file):
  write(tmp_path / file, {**arrays, "class_names": ["cat", "dog", "ship"]})
  dataset = load(tmp_path / file)
  np.testing.assert_array_equal(dataset.images, arrays["image"].astype(np.float32))
  assert dataset.images[3].shape == dataset.image_shape == (7,)
  assert dataset.image_dtype == np.float32 == dataset.images[3].dtype
  np.testing.assert_array_equal(dataset.texts, arrays["text"].astype(np.float32))
  assert dataset.texts.dtype == np.float32
  assert dataset.labels.tolist() == [2, 0, 1] * 4 and dataset.labels.dtype == np.int32
  assert dataset.class_names == ["cat", "dog", "ship"]
  assert dataset.names[0] == "item_0" and dataset.names[11] == "item_11"
  assert dataset.labels_used == "unknown (features given)"
  assert [len(part) for part in dataset.splits] == [8, 8, 4]


def test_items_of_the_label_minus_one_have_none(arrays, tmp_path):
  label = np.array([-1, 3, 5, 9] * 3)
  np.savez(tmp_path / "a.npz", **{**arrays, "label": label})
  dataset = load(tmp_path / "a.npz", num_queries=3)
  assert dataset.labels.tolist() == [-1, 0, 1, 2] * 3 and dataset.class_names == ["3", "5", "9"]
  assert (dataset.labels[dataset.splits.query] >= 0).all() and len(dataset.splits.query) == 3
  assert any(note.startswith("3 items have no label") for note in dataset.notes)
  np.savez(tmp_path / "b.npz", **{**arrays, "label": np.array([-1, 1] * 6)})
  both = load(tmp_path / "b.npz")
  assert both.labels.tolist() == [0, 1] * 6 and both.class_names == ["-1", "1"]
  assert not any("no label" in note for note in both.notes)


@pytest.mark.parametrize(("write", "file"), FORMATS)
def test_tags_and_several_labels_become_indicators(arrays, rng, tmp_path, write, file):
  tags, labels = rng.random((12, 5)) < 0.4, rng.random((12, 4)) < 0.5
  variables = {**arrays, "text": tags, "label": labels}
  if write is not write_npz:  # MATLAB writes such arrays as sparse ones of floating point
    variables = {
      **arrays,
      "text": scipy.sparse.csc_array(tags.astype(float)),
      "label": labels * 1.0,
    }
  write(tmp_path / file, variables)
  dataset = load(tmp_path / file)
  assert dataset.texts.dtype == dataset.labels.dtype == bool
  np.testing.assert_array_equal(dataset.texts, tags)
  np.testing.assert_array_equal(dataset.labels, labels)
  assert dataset.class_names == ["0", "1", "2", "3"]


@pytest.mark.parametrize("write", [write_npz, write_v5])
def test_labels_may_be_a_column(arrays, tmp_path, write):
  file = tmp_path / f"a.{'npz' if write is write_npz else 'mat'}"
  write(file, {**arrays, "label": arrays["label"][:, None] * 1.0})
  dataset = load(file)
  assert dataset.labels.tolist() == [2, 0, 1] * 4
  assert dataset.class_names == ["3", "5", "9"]


def test_counts_of_words_stay_bytes(arrays, rng, tmp_path):
  counts = rng.integers(0, 9, (12, 3), dtype=np.uint8)
  np.savez(tmp_path / "a.npz", **{**arrays, "text": counts})
  dataset = load(tmp_path / "a.npz")
  assert dataset.texts.dtype == np.uint8 and (dataset.texts == counts).all()


def test_texts_and_labels_may_be_absent_and_arrays_have_any_name(arrays, tmp_path):
  np.savez(tmp_path / "a.npz", XAll=arrays["image"])
  dataset = load(tmp_path / "a.npz", image="XAll", text="", label="", labels_used="ImageNet")
  assert dataset.texts is None and dataset.labels is None and dataset.class_names == []
  assert [len(part) for part in dataset.splits] == [12, 12, 0]
  assert dataset.labels_used == "ImageNet"


def test_the_official_test_part_is_the_queries(with_test_part, tmp_path):
  np.savez(tmp_path / "a.npz", **with_test_part)
  dataset = load(tmp_path / "a.npz", **TEST_PARTS, num_queries=1000)  # as many as there are
  assert dataset.splits.query.tolist() == [12, 13, 14, 15, 16]
  assert dataset.splits.database.tolist() == list(range(12))
  assert dataset.names[11] == "train_11" and dataset.names[12] == "test_0"
  np.testing.assert_array_equal(
    dataset.images[12:], with_test_part["image_test"].astype(np.float32)
  )
  np.testing.assert_array_equal(dataset.texts[12:], with_test_part["text_test"].astype(np.float32))
  assert dataset.class_names == ["3", "4", "5", "9"]  # numbered over both parts
  assert dataset.labels.tolist() == [3, 0, 2] * 4 + [2, 1, 2, 3, 0]


def test_validation_queries_come_from_the_database_and_test_queries_are_nowhere(rng, tmp_path):
  np.savez(
    tmp_path / "a.npz",
    image=rng.normal(size=(60, 4)),
    text=rng.random((60, 3)),
    label=np.arange(60) % 3,
    image_test=rng.normal(size=(20, 4)),
    text_test=rng.random((20, 3)),
    label_test=np.arange(20) % 3,
  )
  options = {**TEST_PARTS, "num_validation": 9, "num_train": 30}
  train, database, query = load(tmp_path / "a.npz", evaluate_on="validation", **options).splits
  assert len(query) == 9 and not set(query) & (set(train) | set(database))
  assert set(train) <= set(database)
  assert set(query) | set(database) == set(range(60))  # so no test query, 60 and up, is anywhere


@pytest.mark.parametrize(
  ("broken", "message"),
  [
    ({"text": np.ones((11, 3))}, r"image has 12 rows and text 11"),
    ({"label": np.arange(13)}, r"image has 12 rows and label 13"),
    ({"image": np.full((12, 7), np.nan)}, r"image: 12 of 12 rows hold NaN or infinity"),
    ({"image": np.full((12, 7), 1e300)}, r"image: 12 of 12 rows hold NaN or infinity"),
    ({"text": np.where(np.eye(12, 3), np.inf, 0)}, r"text: 3 of 12 rows hold NaN"),
    ({"label": np.full(12, np.nan)}, r"label: 12 of 12 rows hold NaN"),
    ({"image": np.ones((12, 2, 2))}, r"image has the shape \(12, 2, 2\); .* two dimensions"),
    ({"image": np.ones(12)}, r"image has the shape \(12,\); .* two dimensions"),
    ({"image": np.float32(3)}, r"image has the shape \(\); .* two dimensions"),
    ({"text": np.ones(12)}, r"text has the shape \(12,\)"),
    ({"label": np.ones((12, 2, 2))}, r"label has the shape \(12, 2, 2\)"),
    ({"label": np.arange(12) / 4}, r"label has the shape \(12,\), so .* whole numbers"),
    ({"label": np.full((12, 2), -1)}, r"0 and 1 alone; its values go from -1 to -1"),
    ({"text": np.full((12, 3), "sky")}, r"text has the type <U3; numbers are needed"),
    ({"class_names": np.array(["a", "b"])}, r"class_names has 2 names, but label 3 classes"),
  ],
)
def test_arrays_that_make_no_pairs_are_refused(arrays, tmp_path, broken, message):
  np.savez(tmp_path / "a.npz", **{**arrays, **broken})
  with pytest.raises(InputError, match=message) as error:
    load(tmp_path / "a.npz")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("broken", "message"),
  [
    # As many texts as images in all, but not in each part.
    ({"text": np.ones((11, 3)), "text_test": np.ones((6, 3))}, r"image has 12 rows and text 11"),
    ({"label_test": np.arange(4)}, r"image_test has 5 rows and label_test 4"),
    ({"image_test": np.ones((5, 6))}, r"image has .* \(12, 7\) and image_test \(5, 6\)"),
    ({"text_test": np.ones((5, 4))}, r"text has .* \(12, 3\) and text_test \(5, 4\)"),
    ({"label_test": np.ones((5, 4))}, r"label has .* \(12,\) and label_test \(5, 4\)"),
  ],
)
def test_a_test_part_that_does_not_fit_is_refused(with_test_part, tmp_path, broken, message):
  np.savez(tmp_path / "a.npz", **{**with_test_part, **broken})
  with pytest.raises(InputError, match=message):
    load(tmp_path / "a.npz", **TEST_PARTS)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"image": ""}, "data field image is ''"),
    ({"image_test": "image_test"}, "field text is 'text' and text_test ''.*both or neither"),
    ({"text_test": "text_test"}, "text_test 'text_test'.*no array of a test part"),
    ({"image": 3}, "data field image is 3; give a string"),
  ],
)
def test_invalid_fields_are_refused(with_test_part, tmp_path, fields, message):
  np.savez(tmp_path / "a.npz", **with_test_part)
  fields = {**data_config("features").to_dict(), "path": str(tmp_path / "a.npz"), **fields}
  with pytest.raises(InputError, match=message):
    load_dataset(types.SimpleNamespace(**fields))


@pytest.mark.parametrize(("write", "file"), FORMATS)
def test_a_missing_array_lists_those_that_are_there(arrays, tmp_path, write, file):
  write(tmp_path / file, arrays)
  with pytest.raises(InputError, match=r"no array tags, y; it holds .*image \(12, 7\)") as error:
    load(tmp_path / file, text="tags", label="y")
  assert "text (12, 3)" in str(error.value) and "#refs#" not in str(error.value)


def test_a_structure_is_no_array(tmp_path, arrays):
  write_v73(tmp_path / "a.mat", arrays)
  with h5py.File(tmp_path / "a.mat", "a") as file:
    file.create_group("data")["x"] = 1
  with pytest.raises(InputError, match=r"holds no array data; it holds data\.x \(\), image"):
    load(tmp_path / "a.mat", image="data")


def test_files_that_cannot_be_read_are_refused(arrays, tmp_path):
  for path, message in {
    "": "set data.path to an .npz or .mat file",
    str(tmp_path / "none.npz"): "none.npz is not a file",
    str(tmp_path): "is not a file",
  }.items():
    with pytest.raises(InputError, match=message):
      load(path)
  (tmp_path / "a.txt").write_text("1 2 3")
  with pytest.raises(InputError, match=r"ends in '.txt'; .* \.npz and \.mat"):
    load(tmp_path / "a.txt")
  for name in ("a.npz", "a.mat"):
    (tmp_path / name).write_bytes(b"no features at all" * 100)
    with pytest.raises(InputError, match=rf"{name} cannot be read as"):
      load(tmp_path / name)
  np.savez(tmp_path / "b.npz", **{**arrays, "text": np.array([{}] * 12)})  # would need pickle
  with pytest.raises(InputError, match=r"b\.npz cannot be read"):
    load(tmp_path / "b.npz")


def test_wikipedia_has_its_own_defaults(with_test_part, tmp_path):
  parts = {
    f"{field}_{part}": with_test_part[field if part == "train" else f"{field}_test"]
    for field in ("image", "text", "label")
    for part in ("train", "test")
  }
  np.savez(tmp_path / "wikipedia.npz", **parts)
  for path in (tmp_path, tmp_path / "wikipedia.npz"):
    dataset = load(path, "wikipedia")
    assert len(dataset.splits.query) == 4 and (dataset.splits.query >= 12).all()
    assert dataset.labels_used == "none (SIFT histograms)"
  with pytest.raises(InputError, match=r"wikipedia\.npz is not a file"):
    load(tmp_path.parent, "wikipedia")


def test_the_real_wikipedia(shared):
  folder = shared / "data" / "wikipedia"
  dataset = load_dataset(config_of("wikipedia", path=str(folder)))
  assert [len(part) for part in dataset.splits] == [2173, 2173, 693]
  file = np.load(folder / "wikipedia.npz")
  for row, (part, position) in {5: ("train", 5), 2173: ("test", 0), 2865: ("test", 692)}.items():
    assert (dataset.images[row] == file[f"image_{part}"][position]).all()
    assert (dataset.texts[row] == file[f"text_{part}"][position]).all()
    name = dataset.class_names[dataset.labels[row]]
    assert name == file["class_names"][file[f"label_{part}"][position]]
  assert dataset.image_shape == (128,) and dataset.texts.shape == (2866, 10)
  config = config_of("wikipedia", path=str(folder), evaluate_on="validation")
  train, database, query = load_dataset(config).splits
  assert len(train) == len(database) == 2173 - 217 and len(query) == 217
  assert sorted([*database, *query]) == list(range(2173))


def write_struct(path, version, data):
  """One structure with fields and a split, as public cross-modal sets have it."""
  if version == "v5":
    scipy.io.savemat(path, {"data": data})
    return
  with h5py.File(path, "w") as file:
    for name, value in data.items():
      if isinstance(value, dict):
        for inner, values in value.items():
          file[f"data/{name}/{inner}"] = np.asarray(values, float).reshape(1, -1).T
      elif scipy.sparse.issparse(value):
        columns = value.tocsc()
        group = file.create_group(f"data/{name}")
        group.attrs["MATLAB_sparse"] = np.uint64(columns.shape[0])
        group["data"], group["ir"], group["jc"] = columns.data, columns.indices, columns.indptr
      else:
        file[f"data/{name}"] = np.asarray(value).T


@pytest.mark.parametrize("version", ["v5", "v7.3"])
def test_a_structure_with_items_in_columns_and_a_split_inside(tmp_path, rng, version):
  images, texts = rng.normal(size=(9, 4)).astype(np.float32), rng.random((9, 6)) < 0.5
  classes = np.arange(9) % 3
  labels = scipy.sparse.csc_matrix(np.eye(3)[classes].T)
  train, test = np.array([8, 1, 3, 4, 6]), np.array([2, 9, 5])  # counted from 1; 7 is left out
  path = tmp_path / "data.mat"
  split = {"ind_train": train, "ind_test": test}
  write_struct(
    path,
    version,
    {"X1": images.T, "X2": texts.T.astype(float), "Y": labels, "split": split},
  )
  fields = {
    "image": "data.X1",
    "text": "data.X2",
    "label": "data.Y",
    "items_in_columns": "data.X1, data.X2, data.Y",
    "train_items": "data.split.ind_train",
    "test_items": "data.split.ind_test",
    "num_queries": 3,
  }
  found = load(path, **fields)
  rows = np.concatenate([train, test]) - 1
  np.testing.assert_array_equal(found.images, images[rows])
  np.testing.assert_array_equal(found.texts, texts[rows])
  np.testing.assert_array_equal(found.labels, np.eye(3, dtype=bool)[classes[rows]])
  assert list(found.names) == [f"item_{row}" for row in rows]
  np.testing.assert_array_equal(found.splits.query, [5, 6, 7])
  np.testing.assert_array_equal(
    load(path, **fields | {"items_in_columns": "all"}).images, found.images
  )
  for changes, words in {
    (("image", "data.X"),): r"holds no array data\.X; it holds .*data\.X1 \(4, 9\).*ind_train",
    (("items_in_columns", "data.Z"),): r"names 'data\.Z', which is none of the arrays",
    (("count_from", "0"),): "names item 9, but there are 9 items, counted from 0",
    (("test_items", "data.split.ind_train"),): "5 items are in",
    (("items_in_columns", ""),): r"data\.X1 has 4 rows and data\.X2 6",
  }.items():
    with pytest.raises(InputError, match=words):
      load(path, **fields | dict(changes))


def test_cells_of_rows_of_texts_and_of_arrays_of_their_own(tmp_path, rng):
  path = tmp_path / "cells.mat"
  rows = rng.normal(size=(5, 3))
  cell = np.empty(5, object)
  cell[:] = list(rows)
  names = np.empty(2, object)
  names[:] = ["cat", "dog"]
  mixed = np.empty(2, object)
  mixed[:] = [rng.normal(size=(5, 2)), rng.normal(size=(5, 7))]
  scipy.io.savemat(path, {"rows": cell, "views": mixed, "class_names": names, "y": [0, 1, 0, 1, 0]})
  found = load(path, image="rows", text="views{2}", label="y", num_queries=1)
  np.testing.assert_allclose(found.images, rows, rtol=1e-6)
  np.testing.assert_allclose(found.texts, mixed[1], rtol=1e-6)
  assert list(found.class_names) == ["cat", "dog"]


def test_a_part_without_a_list_is_what_the_other_has_not(tmp_path, rng):
  path = tmp_path / "a.npz"
  mask = np.arange(8) % 4 == 0
  np.savez(path, image=rng.normal(size=(8, 2)), label=np.arange(8) % 2, held_out=mask)
  found = load(path, text="", test_items="held_out", num_queries=2)
  assert list(found.names) == [f"item_{i}" for i in (1, 2, 3, 5, 6, 7, 0, 4)]
