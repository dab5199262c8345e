import numpy as np

from udh_jax.methods.evaluation import purity
from udh_jax.report.table import markdown_table


def test_purity_counts_the_most_frequent_class_of_each_cluster():
  assert purity(np.array([0, 0, 1, 1, 2]), np.array([1, 1, 1, 0, 0])) == 3 / 5
  assert purity(np.array([0, 1, 2]), np.array([0, 1, 2])) == 1.0


def test_a_table_is_aligned_markdown():
  table = markdown_table(["method", "mAP"], [["UDH-ECC", "0.5"], ["LSH", "0.25"]])
  assert table.splitlines() == [
    "| method  |  mAP |",
    "| ------- | ---: |",
    "| UDH-ECC |  0.5 |",
    "| LSH     | 0.25 |",
  ]
