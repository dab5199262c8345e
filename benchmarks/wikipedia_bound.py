"""How far Wikipedia's image features reach: kernel ridge regression to the texts, without codes.

python benchmarks/wikipedia_bound.py --path wikipedia.npz

Real-valued and with the true texts in the database: what a hash of these features can hope for from
image to text. Width and ridge are chosen on validation pairs.
"""

import argparse

import numpy as np
from sklearn.kernel_ridge import KernelRidge

from udh_jax.data.dataset import data_config, load_dataset

SPLITS = (0, 1, 2)


def average_precision(similarity, query_labels, labels, at=50):
  """mAP@50, denominator retrieved, by a plain sort."""
  order = np.argsort(-similarity, axis=1, kind="stable")[:, :at]
  relevant = labels[order] == query_labels[:, None]
  precision = np.cumsum(relevant, axis=1) / np.arange(1, at + 1)
  return float(np.mean((precision * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)))


def unit(rows):
  return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def bound(path, change, width, ridge, *, seed=None):
  """Image to text, on the test queries, or on the validation queries of a split."""
  config = data_config("wikipedia")
  config.path = path
  if seed is not None:
    config.update(evaluate_on="validation", seed=seed)
  dataset = load_dataset(config)
  queries, database = dataset.splits.query, dataset.splits.database
  images = change(dataset.images)
  spread = images[database].var(axis=0).sum()
  mean = dataset.texts[database].mean(axis=0)
  texts = dataset.texts[database] - mean
  model = KernelRidge(kernel="rbf", gamma=width / spread, alpha=ridge).fit(images[database], texts)
  similarity = unit(model.predict(images[queries])) @ unit(texts).T
  return average_precision(similarity, dataset.labels[queries], dataset.labels[database])


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--path", required=True, help="wikipedia.npz or its folder")
  path = parser.parse_args().path
  print("| images | mAP@50 image→text, validation | test |")
  print("|---|---|---|")
  for name, change in {"histograms": lambda rows: rows, "their roots": np.sqrt}.items():
    found = {
      (width, ridge): np.mean([bound(path, change, width, ridge, seed=s) for s in SPLITS])
      for width in (0.3, 1.0, 3.0)
      for ridge in (0.3, 1.0, 3.0)
    }
    best = max(found, key=found.get)
    print(f"| {name} | {found[best]:.3f} | {bound(path, change, *best):.3f} |")


if __name__ == "__main__":
  main()
