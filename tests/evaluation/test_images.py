import numpy as np

from udh_jax.evaluation.images import purity


def test_purity_counts_the_most_frequent_class_of_each_cluster():
  labels = np.array([0, 0, 1, 1, 2])
  three_right = np.array([[1], [1], [1], [0], [0]])
  assert purity(labels, three_right) == 3 / 5
  assert purity(labels, labels[:, None]) == 1.0
  assert purity(labels, np.concatenate([three_right, labels[:, None]], axis=1)) == 4 / 5
