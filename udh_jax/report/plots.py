"""Pictures for people: galleries of neighbours, curves, and what codes look like."""

import math
import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from udh_jax.data.types import Dataset
from udh_jax.extras import require_extra
from udh_jax.files import write_atomically
from udh_jax.printable import printable

_DPI = 120
RIGHT, WRONG, NEUTRAL = "#2e8b57", "#c0392b", "#888888"
LEGEND = "green, ✓: shares a label of the query; red, ✗: does not"


def _figure(width: float, height: float):
  """A figure without a window system."""
  module = require_extra("matplotlib.figure", extra="report")
  figure = module.Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
  require_extra("matplotlib.backends.backend_agg", extra="report").FigureCanvasAgg(figure)
  return figure


def _save(figure, path: str | os.PathLike) -> None:
  """Draws every text as it is: a dollar sign in a name begins no formula."""
  Text = require_extra("matplotlib.text", extra="report").Text
  for text in figure.findobj(Text):
    text.set_parse_math(False)
    text.set_usetex(False)
    text.set_text(printable(text.get_text(), keep="\n"))
  write_atomically(path, lambda file: figure.savefig(file, format="png"))


def _relevant(dataset: Dataset, query: int, item: int) -> bool:
  labels = dataset.labels
  if labels is None:
    return False
  if labels.ndim == 1:
    return bool(labels[query] == labels[item] and labels[query] >= 0)
  return bool((labels[query] & labels[item]).any())


def neighbours(
  path: str | os.PathLike,
  dataset: Dataset,
  queries: np.ndarray,
  items: np.ndarray,
  distances: np.ndarray,
  *,
  title: str,
  sides: tuple[str, str] = ("image", "image"),
  notes: Sequence[str] = (),
) -> None:
  """Draws each query with its nearest items, framed green where right and red where wrong.

  Above a query stands its class, or its name where it has none.

  Args:
    path: PNG to write.
    dataset: Where the pictures, texts and labels are; without labels the frames are grey.
    queries: Rows of the queries. Array of shape ``[q]``.
    items: Rows of their neighbours, nearest first. Array of shape ``[q, k]``.
    distances: Hamming distances. Array of shape ``[q, k]``.
    title: Stands above.
    sides: What is shown of queries and of items, "image" or "text"; where there is no picture, or a
      text has no words, the item's name and classes stand instead.
    notes: Words for each query, below its class; none are needed.
  """
  legend = f"\nleft: queries; {LEGEND}" if dataset.labels is not None else "\nleft: queries"

  def cell(item, text, color, side):
    if side == "image" and dataset.has_pictures:
      return _Cell(dataset.images[int(item)], text, color)
    return _Cell(describe_item(dataset, int(item), side), text, color)

  cells = []
  for row, query in enumerate(queries):
    lines = [_caption(dataset, int(query)), *notes[row : row + 1]]
    cells.append(cell(query, "\n".join(lines), NEUTRAL, sides[0]))
    for item, distance in zip(items[row], distances[row], strict=True):
      mark, color = "", NEUTRAL
      if dataset.labels is not None:
        mark, color = ("✓ ", RIGHT) if _relevant(dataset, query, item) else ("✗ ", WRONG)
      cells.append(cell(item, f"{mark}d = {distance}", color, sides[1]))
  _grid(path, cells, columns=items.shape[1] + 1, title=title + legend, scale=1.0)


def describe_item(dataset: Dataset, row: int, side: str) -> list[str]:
  """A few words for an item that is not shown as a picture.

  Args:
    dataset: Where it is.
    row: Which one.
    side: "image", or "text" for the words of its text.

  Returns:
    Lines: the beginning of the text as it was written; up to six of its words where only these are
    known; the name and the classes where there are none.
  """
  if side == "text" and len(dataset.captions) and dataset.captions[row].strip():
    return textwrap.wrap(dataset.captions[row], _LINE, max_lines=6, placeholder="…")
  if side == "text" and dataset.texts is not None and len(dataset.words):
    present = np.flatnonzero(dataset.texts[row])
    if len(present):
      return [dataset.words[column] for column in present[:6]]
  return [_last_name(dataset, row), *_classes(dataset, row)[:5]]


def _last_name(dataset: Dataset, row: int) -> str:
  return dataset.names[row].rsplit("/", 1)[-1]


def _classes(dataset: Dataset, row: int) -> list[str]:
  """Names of the classes of an item; none where it has no label."""
  if dataset.labels is None:
    return []
  label = dataset.labels[row]
  columns = np.flatnonzero(label) if np.ndim(label) else np.array([label])
  return [dataset.class_names[column] for column in columns.tolist() if column >= 0]


def _caption(dataset: Dataset, row: int) -> str:
  """The classes of an item, or the end of its name, in a line."""
  if classes := _classes(dataset, row):
    return _cut(", ".join(classes), _WIDE)
  name = _last_name(dataset, row)
  return name if len(name) <= _WIDE else f"…{name[1 - _WIDE :]}"


def _cut(text: str, length: int) -> str:
  return text if len(text) <= length else text[: length - 1] + "…"


_LINE = 13  # characters of a line in the place of a picture
_WIDE = 15  # and of the line above it


_TEXT = 0.2  # height of a line above a picture, in parts of the picture's side


class _Cell(NamedTuple):
  """A picture ``[h, w, 3]``, uint8, or words in its place; the text above; the frame's colour."""

  shown: np.ndarray | Sequence[str]
  text: str
  color: str


def _grid(
  path: str | os.PathLike, cells: Sequence[_Cell], *, columns: int, title: str, scale: float
) -> None:
  """Draws cells in reading order, ``scale`` inches wide, in one plot: one each would be slow."""
  Rectangle = require_extra("matplotlib.patches", extra="report").Rectangle
  rows = -(-len(cells) // columns)
  text_height = _TEXT * (1 + max(cell.text.count("\n") for cell in cells))
  pitch = 1 + text_height
  figure = _figure(max(4.0, scale * columns), scale * pitch * rows + 0.6)
  figure.suptitle(title, fontsize=10)
  axis = figure.subplots()
  axis.set_axis_off()
  side = 0.93
  margin = (1 - side) / 2
  for place, (shown, text, color) in enumerate(cells):
    row, column = divmod(place, columns)
    left, top = column + margin, row * pitch + text_height
    width = height = side
    if isinstance(shown, np.ndarray):
      longest = max(shown.shape[:2])
      height, width = (side * length / longest for length in shown.shape[:2])
      picture = _at_most(shown, round(2 * scale * side * _DPI))
      axis.imshow(picture, extent=(left, left + width, top + height, top))
    else:
      words = (_cut(word, _LINE) for word in shown)
      middle = left + side / 2, top + side / 2
      axis.text(*middle, "\n".join(words), ha="center", va="center", fontsize=6.5)
    axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=3))
    axis.text(left + width / 2, top - 0.03, text, ha="center", va="bottom", fontsize=8)
  axis.set(xlim=(0, columns), ylim=(pitch * rows, 0), aspect="equal")
  _save(figure, path)


def _at_most(image: np.ndarray, side: int) -> np.ndarray:
  """A picture whose longer side has at most so many pixels."""
  longest = max(image.shape[:2])
  if longest <= side:
    return image
  from PIL import Image

  smaller = Image.fromarray(image).reduce(math.ceil(longest / side))
  return np.asarray(smaller)


def _picture(axis, image: np.ndarray, text: str, color: str) -> None:
  axis.imshow(image, interpolation="nearest")
  axis.set_title(text, fontsize=8, pad=2)
  axis.set_xticks([])
  axis.set_yticks([])
  for spine in axis.spines.values():
    spine.set(color=color, linewidth=3)


def picture_row(
  path: str | os.PathLike,
  pictures: Sequence[tuple[np.ndarray | Sequence[str], str]],
  *,
  title: str,
) -> None:
  """Draws pictures in reading order, six in a row.

  Args:
    path: PNG to write.
    pictures: Image ``[h, w, 3]``, uint8, or words in its place, and the text above it.
    title: Stands above all.
  """
  cells = [_Cell(shown, text, NEUTRAL) for shown, text in pictures]
  _grid(path, cells, columns=min(6, len(pictures)), title=title, scale=1.6)


def attention_maps(
  path: str | os.PathLike, images: np.ndarray, attention: np.ndarray, *, title: str
) -> None:
  """Draws images, a row each, with one attention map after another laid over them.

  Args:
    path: PNG to write.
    images: Pictures. uint8 array of shape ``[m, h, w, 3]``.
    attention: Array of shape ``[m, h', w', G]``; each map is scaled to its own range.
    title: Stands above.
  """
  count, groups = len(images), attention.shape[3]
  figure = _figure(1.1 * (groups + 1) + 0.3, 1.25 * count + 0.7)
  figure.suptitle(title, fontsize=10)
  axes = figure.subplots(count, groups + 1, squeeze=False)
  height, width = images.shape[1:3]
  extent = (-0.5, width - 0.5, height - 0.5, -0.5)
  for row, (image, maps) in enumerate(zip(images, attention, strict=True)):
    grey = np.repeat(image.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    _picture(axes[row, 0], image, "image" if row == 0 else "", NEUTRAL)
    for group in range(groups):
      axis = axes[row, group + 1]
      _picture(axis, grey, f"group {group + 1}" if row == 0 else "", NEUTRAL)
      axis.imshow(maps[..., group], cmap="jet", alpha=0.5, extent=extent, interpolation="bilinear")
  _save(figure, path)


def precision_at(
  path: str | os.PathLike,
  curves: Mapping[str, tuple[Sequence[int], np.ndarray]],
  *,
  title: str,
  caption: str,
) -> None:
  """Draws the precision of the first N items over N.

  Args:
    path: PNG to write.
    curves: Cut-offs N and precision at each, by method.
    title: Stands above.
    caption: Stands below.
  """
  figure, axis = _curves(title, caption)
  for position, (name, (cuts, precision)) in enumerate(curves.items()):
    axis.plot(cuts, precision, label=name, **_line(position, name))
  axis.set(xscale="log", ylim=(0, 1.01), xlabel="items retrieved, N", ylabel="precision@N")
  axis.xaxis.set_major_formatter("{x:,g}")  # and no formula, see `_save`
  axis.xaxis.set_minor_formatter("")
  axis.legend(fontsize=8)
  _save(figure, path)


def scores_over_lengths(
  path: str | os.PathLike,
  curves: Mapping[str, Mapping[int, Sequence[float]]],
  *,
  title: str,
  ylabel: str,
  caption: str,
) -> None:
  """Draws scores over the length of the codes: the mean over seeds, and their deviation as bars.

  Args:
    path: PNG to write.
    curves: By method and length in bits, the score of each seed.
    title: Stands above.
    ylabel: What the score is.
    caption: Stands below.
  """
  figure, axis = _curves(title, caption)
  lengths = sorted({length for by_length in curves.values() for length in by_length})
  for position, (name, by_length) in enumerate(curves.items()):
    there = [length for length in lengths if length in by_length]
    means = [np.mean(by_length[length]) for length in there]
    spreads = [
      np.std(by_length[length], ddof=1) if len(by_length[length]) > 1 else 0.0 for length in there
    ]
    axis.errorbar(
      there, means, yerr=spreads, marker="o", capsize=3, label=name, **_line(position, name)
    )
  axis.set(xscale="log", xlabel="bits", ylabel=ylabel)
  axis.set_xticks(lengths, [str(length) for length in lengths])
  axis.xaxis.set_minor_locator(require_extra("matplotlib.ticker", extra="report").NullLocator())
  axis.legend(fontsize=8)
  _save(figure, path)


def distances(
  path: str | os.PathLike, same: np.ndarray, other: np.ndarray, *, title: str, caption: str
) -> None:
  """Draws how Hamming distances spread, of relevant pairs and of others.

  Args:
    path: PNG to write.
    same: Relevant pairs at each distance. Array of shape ``[bits + 1]``.
    other: The other pairs. Array of shape ``[bits + 1]``.
    title: Stands above.
    caption: Stands below.
  """
  figure, axis = _curves(title, caption)
  places = np.arange(len(same))
  for counts, color, name in ((same, RIGHT, "share a label"), (other, WRONG, "do not")):
    share = counts / max(counts.sum(), 1)
    axis.fill_between(
      places, share, step="mid", alpha=0.45, color=color, label=f"pairs that {name}"
    )
  axis.set(xlabel="Hamming distance", ylabel="share of the pairs", xlim=(0, len(same) - 1))
  axis.set_ylim(bottom=0)
  axis.legend(fontsize=8)
  _save(figure, path)


def bit_statistics(
  path: str | os.PathLike, balance: np.ndarray, correlation: np.ndarray, *, title: str
) -> None:
  """Draws how even each bit is, and how strongly bits are correlated.

  Args:
    path: PNG to write.
    balance: Share of +1 of each bit. Array of shape ``[bits]``.
    correlation: Between bits; NaN where a bit is constant. Array of shape ``[bits, bits]``.
    title: Stands above.
  """
  figure = _figure(8.0, 3.6)
  figure.suptitle(title, fontsize=11)
  left, right = figure.subplots(1, 2)
  left.bar(np.arange(len(balance)), balance, color="#34699a")
  left.axhline(0.5, color="black", linewidth=0.8)
  left.set(xlabel="bit", ylabel="share of +1", ylim=(0, 1))
  image = right.imshow(np.abs(correlation), vmin=0, vmax=1, cmap="magma", interpolation="nearest")
  right.set(xlabel="bit", ylabel="bit", title="|correlation|")
  figure.colorbar(image, ax=right, shrink=0.8)
  _save(figure, path)


def _curves(title: str, caption: str):
  figure = _figure(7.0, 5.0)
  axis = figure.subplots()
  axis.set_title(title, fontsize=11)
  axis.grid(alpha=0.3)
  figure.supxlabel(textwrap.fill(caption, 115), fontsize=7)
  return figure, axis


def _line(position: int, name: str) -> dict[str, object]:
  """The first method stands out; those on a fine-tuned teacher are dashed."""
  return {
    "linewidth": 2.4 if position == 0 else 1.3,
    "linestyle": "--" if "fine-tuned" in name else "-",
  }


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
  figure, axis = _curves(title, caption)
  for position, (name, (precision, recall)) in enumerate(curves.items()):
    axis.plot(recall, precision, marker="o", markersize=3, label=name, **_line(position, name))
  axis.set(xlim=(0, 1.01), ylim=(0, 1.01), xlabel="recall", ylabel="precision")
  axis.legend(fontsize=8)
  _save(figure, path)
