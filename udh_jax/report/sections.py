"""Parts of a run's page that every method has: galleries of neighbours, and curves."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from udh_jax.data.types import Dataset
from udh_jax.report import plots
from udh_jax.report.page import Section
from udh_jax.retrieval.hamming import search
from udh_jax.retrieval.metrics import RetrievalScores

GALLERY_QUERIES = 8
GALLERY_NEIGHBOURS = 10


def some_queries(dataset: Dataset) -> np.ndarray:
  """Rows spread evenly over the queries, or over the database where there are none."""
  splits = dataset.splits
  rows = splits.query if len(splits.query) else splits.database
  return rows[np.linspace(0, len(rows) - 1, min(GALLERY_QUERIES, len(rows))).astype(int)]


def gallery(
  path: pathlib.Path,
  dataset: Dataset,
  rows: np.ndarray,
  query_codes: np.ndarray,
  item_codes: np.ndarray,
  *,
  heading: str,
  title: str,
  sides: tuple[str, str] = ("image", "image"),
  notes: Sequence[str] = (),
) -> Section:
  """Draws queries with their nearest database items.

  Args:
    path: PNG to write.
    dataset: Where the items are.
    rows: Of the queries.
    query_codes: Packed codes of all items as queries. uint8 array of shape ``[n, bytes]``.
    item_codes: The same as database items.
    heading: Of the section.
    title: Of the picture.
    sides: What is shown of queries and of items, "image" or "text".
    notes: Words for each query.
  """
  database = dataset.splits.database
  k = min(GALLERY_NEIGHBOURS, len(database))
  distances, indices = map(np.asarray, search(query_codes[rows], item_codes[database], k))
  plots.neighbours(
    path, dataset, rows, database[indices], distances, title=title, sides=sides, notes=notes
  )
  words = "No labels."
  if dataset.labels is not None:
    words = f"{plots.LEGEND[0].upper()}{plots.LEGEND[1:]}."
  return Section(heading, [words], picture=path)


def precision_recall(
  path: pathlib.Path,
  found: Mapping[str, RetrievalScores],
  *,
  heading: str,
  title: str,
  caption: str,
) -> Section:
  """Draws precision and recall by Hamming radius of several methods.

  Args:
    path: PNG to write.
    found: Scores by method.
    heading: Of the section.
    title: Of the picture.
    caption: Below it.
  """
  curves = {name: value.radius_curve for name, value in found.items()}
  plots.precision_recall(path, curves, title=title, caption=caption)
  words = "Pooled over all pairs of a query and a database item, one point a radius from 0 on."
  return Section(heading, [words], picture=path)
