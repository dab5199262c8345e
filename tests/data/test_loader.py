import threading
import time
import types

import numpy as np
import pytest

from udh_jax.data.loader import ShuffledBatches, read_batches
from udh_jax.data.protocol import permutation
from udh_jax.errors import InputError


def made(images, shape, *, dtype=np.uint8, texts=None):
  return types.SimpleNamespace(images=images, image_shape=shape, image_dtype=dtype, texts=texts)


def memory_dataset(rng, count=20, shape=(4, 5, 3)):
  return made(rng.integers(0, 256, (count, *shape), dtype=np.uint8), shape)


def reader_threads():
  return [t for t in threading.enumerate() if t.name.startswith("read_batches")]


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (10, 10), (3, 8), (7, 5), (1, 3)])
def test_every_epoch_uses_every_row_once(count, batch_size):
  rows = np.arange(100, 100 + count)
  batches = ShuffledBatches(rows, batch_size, seed=0)
  stream = np.concatenate([batches[step] for step in range(60)])
  assert stream.dtype == np.int64 and len(stream) == 60 * batch_size
  epochs = stream[: len(stream) // count * count].reshape(-1, count)
  assert (np.sort(epochs, axis=1) == rows).all()
  if count > 3:
    assert (epochs[0] != epochs[1]).any()


def test_a_batch_depends_on_its_step_alone():
  forward = ShuffledBatches(np.arange(50), 8, seed=3)
  expected = [forward[step] for step in range(40)]
  for step in (39, 0, 17, 6, 7, 6):
    assert (ShuffledBatches(np.arange(50), 8, seed=3)[step] == expected[step]).all()
    assert (forward[step] == expected[step]).all()
  assert (ShuffledBatches(np.arange(50), 8, seed=4)[0] != expected[0]).any()


def test_the_order_does_not_depend_on_the_batch_size():
  small, large = (ShuffledBatches(np.arange(30), size, seed=0) for size in (5, 10))
  assert (np.concatenate([small[2], small[3]]) == large[1]).all()


@pytest.mark.parametrize(("rows", "size"), [(np.zeros(0, int), 4), (np.arange(3), 0)])
def test_batches_of_nothing_are_refused(rows, size):
  with pytest.raises(InputError):
    ShuffledBatches(rows, size, seed=0)


def test_batches_come_in_order_with_their_pictures(rng):
  dataset = memory_dataset(rng)
  batches = ShuffledBatches(np.arange(20), 6, seed=0)
  read = list(read_batches(dataset, batches, start=5, stop=30, num_threads=4))
  assert len(read) == 25
  for step, batch in enumerate(read, start=5):
    assert batch["index"].dtype == np.int32 and (batch["index"] == batches[step]).all()
    assert batch["image"].dtype == np.uint8
    assert (batch["image"] == dataset.images[batches[step]]).all()


def test_order_holds_when_early_pictures_are_slow():
  class Slow:
    def __getitem__(self, row):
      time.sleep(0.02 if row < 4 else 0)
      return np.full((1, 1, 3), row, np.uint8)

  dataset = made(Slow(), (1, 1, 3))
  read = read_batches(dataset, np.arange(12).reshape(12, 1), num_threads=4)
  assert [int(batch["image"][0, 0, 0, 0]) for batch in read] == list(range(12))


def test_padding_is_a_black_picture(rng):
  dataset = memory_dataset(rng)
  (batch,) = read_batches(dataset, [np.array([3, -1, 0, -1])])
  assert batch["index"].tolist() == [3, -1, 0, -1]
  assert (batch["image"][[1, 3]] == 0).all()
  assert (batch["image"][[0, 2]] == dataset.images[[3, 0]]).all()


def test_nothing_to_read_ends_at_once(rng):
  assert list(read_batches(memory_dataset(rng), [])) == []
  assert list(read_batches(memory_dataset(rng), [np.arange(2)] * 5, start=5)) == []


def test_reading_runs_ahead_but_not_without_bound():
  asked = []

  class Counting:
    def __getitem__(self, row):
      asked.append(row)
      return np.zeros((1, 1, 3), np.uint8)

  dataset = made(Counting(), (1, 1, 3))
  reader = read_batches(dataset, ShuffledBatches(np.arange(9), 1, seed=0), num_threads=3)
  next(reader)
  time.sleep(0.1)
  assert 2 <= len(asked) <= 4
  reader.close()


def test_an_error_reaches_the_caller_and_ends_the_threads():
  class Broken:
    def __getitem__(self, row):
      if row == 7:
        raise InputError("/pictures/im7.jpg cannot be read (cut short).")
      return np.zeros((1, 1, 3), np.uint8)

  dataset = made(Broken(), (1, 1, 3))
  reader = read_batches(dataset, np.arange(20).reshape(20, 1), num_threads=4)
  for _ in range(7):
    next(reader)
  with pytest.raises(InputError, match=r"im7\.jpg"):
    next(reader)
  assert not reader_threads()


def test_closing_early_leaves_no_threads(rng):
  reader = read_batches(memory_dataset(rng), ShuffledBatches(np.arange(20), 4, seed=0))
  next(reader)
  assert reader_threads()
  reader.close()
  assert not reader_threads()
  abandoned = read_batches(memory_dataset(rng), ShuffledBatches(np.arange(20), 4, seed=0))
  next(abandoned)
  del abandoned
  assert not reader_threads()


def test_features_and_texts_come_with_the_rows_they_belong_to(rng):
  images = rng.normal(size=(6, 4)).astype(np.float32)
  texts = rng.random((6, 3)) < 0.5
  dataset = made(images, (4,), dtype=np.float32, texts=texts)
  (batch,) = read_batches(dataset, [np.array([5, -1, 2])])
  assert batch["image"].dtype == np.float32 and batch["text"].dtype == bool
  np.testing.assert_array_equal(batch["image"], images[[5, 0, 2]] * [[1], [0], [1]])
  np.testing.assert_array_equal(batch["text"], texts[[5, 0, 2]] & [[True], [False], [True]])


def test_no_two_epochs_have_the_same_order():
  rows = np.arange(100, 110)
  batches = ShuffledBatches(rows, 10, seed=3)
  orders = [tuple(batches[epoch]) for epoch in range(50)]
  assert len(set(orders)) == 50
  for epoch in (0, 7):  # the streams are fixed, as those of the splits are
    np.testing.assert_array_equal(batches[epoch], rows[permutation(10, 3, 4, epoch)])
