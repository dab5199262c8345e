import numpy as np

from udh_jax.data.registry import data_config, load_dataset


def test_digits_are_the_real_ones_spread_over_a_byte():
  from sklearn.datasets import load_digits

  dataset = load_dataset(data_config("digits"))
  digits = load_digits()
  assert len(dataset.images) == 1797 and dataset.image_shape == (8, 8, 3)
  assert dataset.images[5].dtype == np.uint8
  for channel in range(3):
    np.testing.assert_allclose(dataset.images[..., channel], digits.images * 255 / 16, atol=0.5)
  assert (dataset.labels == digits.target).all() and dataset.labels.dtype == np.int32
  assert np.bincount(dataset.labels[dataset.splits.query]).tolist() == [30] * 10
  assert [len(part) for part in dataset.splits] == [1497, 1497, 300]
  assert dataset.protocol == (
    f"digits: 300 queries, 1497 database, 1497 train, seed 0, split {dataset.digest[:12]}"
  )
