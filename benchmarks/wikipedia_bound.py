"""How far Wikipedia's features reach: kernel ridge regression to the texts, without codes.

python benchmarks/wikipedia_bound.py --path wikipedia.npz

Real-valued and with the true texts in the database: what a hash of these features can hope for. The
texts of query images are predicted; width and ridge are chosen on validation pairs. Query texts are
as they are, as if each image of the database told its text.
"""

import argparse

import numpy as np
from sklearn.kernel_ridge import KernelRidge

from udh_jax.data.registry import data_config, load_dataset

SPLITS = (0, 1, 2)


def average_precision(similarity, query_labels, labels, at=50):
  """mAP@50, denominator retrieved, by a plain sort."""
  order = np.argsort(-similarity, axis=1, kind="stable")[:, :at]
  relevant = labels[order] == query_labels[:, None]
  precision = np.cumsum(relevant, axis=1) / np.arange(1, at + 1)
  return float(np.mean((precision * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)))


def unit(rows):
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def bound(path, predict, *, seed=None):
  """mAP@50 on the test queries, or on the validation queries of a split.

  ``predict`` takes the database's images and texts (centred), and the queries' images and texts,
  and says which texts to look for.
  """
  config = data_config("wikipedia")
  config.path = path
  if seed is not None:
    config.update(evaluate_on="validation", seed=seed)
  dataset = load_dataset(config)
  queries, database = dataset.splits.query, dataset.splits.database
  texts = dataset.texts - dataset.texts[database].mean(axis=0)
  images = dataset.images
  sought = predict(images[database], texts[database], images[queries], texts[queries])
  similarity = unit(sought) @ unit(texts[database]).T
  return average_precision(similarity, dataset.labels[queries], dataset.labels[database])


def by_regression(change, width, ridge):
  """From images, each value changed by ``change``."""

  def predict(images, texts, query_images, query_texts):
    images = change(images)
    gamma = width / images.var(axis=0).sum()
    model = KernelRidge(kernel="rbf", gamma=gamma, alpha=ridge).fit(images, texts)
    return model.predict(change(query_images))

  return predict


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--path", required=True, help="wikipedia.npz or its folder")
  path = parser.parse_args().path

  def on_validation(predict):
    return np.mean([bound(path, predict, seed=seed) for seed in SPLITS])

  print("| from | mAP@50, validation | test |")
  print("|---|---|---|")
  for name, change in {"histograms": lambda rows: rows, "their roots": np.sqrt}.items():
    regressions = [
      by_regression(change, width, ridge) for width in (0.3, 1.0, 3.0) for ridge in (0.3, 1.0, 3.0)
    ]
    validation, best = max(((on_validation(r), r) for r in regressions), key=lambda pair: pair[0])
    print(f"| {name} to texts | {validation:.3f} | {bound(path, best):.3f} |")

  def true_texts(images, texts, query_images, query_texts):
    return query_texts

  print(f"| texts to texts | {on_validation(true_texts):.3f} | {bound(path, true_texts):.3f} |")


if __name__ == "__main__":
  main()
