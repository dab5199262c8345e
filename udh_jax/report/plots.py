"""Pictures for people: a gallery of neighbours and precision-recall curves."""

import os
from collections.abc import Mapping

import numpy as np

from udh_jax.data.dataset import ImageDataset
from udh_jax.files import write_atomically

RIGHT, WRONG, NEUTRAL = "#2e8b57", "#c0392b", "#888888"


def _figure(width: float, height: float):
  """A figure without a window system."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
  FigureCanvasAgg(figure)
  return figure


def _save(figure, path: str | os.PathLike) -> None:
  write_atomically(path, lambda file: figure.savefig(file, format="png"))


def _relevant(dataset: ImageDataset, query: int, item: int) -> bool:
  labels = dataset.labels
  if labels.ndim == 1:
    return labels[query] == labels[item]
  return bool((labels[query] & labels[item]).any())


def neighbours(
  path: str | os.PathLike,
  dataset: ImageDataset,
  queries: np.ndarray,
  items: np.ndarray,
  distances: np.ndarray,
  *,
  title: str,
) -> None:
  """Draws each query with its nearest items, framed green where right and red where wrong.

  Args:
    path: PNG to write.
    dataset: Where the pictures and labels are; without labels the frames are grey.
    queries: Rows of the queries. Array of shape ``[q]``.
    items: Rows of their neighbours, nearest first. Array of shape ``[q, k]``.
    distances: Hamming distances. Array of shape ``[q, k]``.
    title: Stands above.
  """
  count, k = items.shape
  figure = _figure(1.0 * (k + 1) + 0.3, 1.18 * count + 0.9)
  legend = "" if dataset.labels is None else "\ngreen: shares the query's label, red: does not"
  figure.suptitle(title + legend, fontsize=10)
  axes = figure.subplots(count, k + 1, squeeze=False)
  for row, query in enumerate(queries):
    cells = [(query, "query", NEUTRAL)]
    for item, distance in zip(items[row], distances[row], strict=True):
      color = NEUTRAL
      if dataset.labels is not None:
        color = RIGHT if _relevant(dataset, query, item) else WRONG
      cells.append((item, f"d = {distance}", color))
    for axis, (item, text, color) in zip(axes[row], cells, strict=True):
      axis.imshow(dataset.images[int(item)], interpolation="nearest")
      axis.set_title(text, fontsize=8, pad=2)
      axis.set_xticks([])
      axis.set_yticks([])
      for spine in axis.spines.values():
        spine.set(color=color, linewidth=3)
  _save(figure, path)


def precision_recall(
  path: str | os.PathLike,
  curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
  *,
  title: str,
  caption: str,
) -> None:
  """Draws precision over recall, one point for each Hamming radius.

  Args:
    path: PNG to write.
    curves: Precision and recall by radius, each of shape ``[bits + 1]``, by method.
    title: Stands above.
    caption: Stands below: the protocol.
  """
  figure = _figure(7.0, 5.0)
  axis = figure.subplots()
  for position, (name, (precision, recall)) in enumerate(curves.items()):
    axis.plot(
      recall,
      precision,
      marker="o",
      markersize=3,
      linewidth=2.4 if position == 0 else 1.3,
      linestyle="--" if "fine-tuned" in name else "-",
      label=name,
    )
  axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
  axis.set_title(title, fontsize=11)
  axis.grid(alpha=0.3)
  axis.legend(fontsize=8)
  figure.supxlabel(caption, fontsize=7)
  _save(figure, path)
