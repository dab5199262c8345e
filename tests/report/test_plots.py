"""Texts of people in pictures for people."""

from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from PIL import Image

from udh_jax.report import plots

# Two dollar signs begin a formula, which this is none.
NAMES = [
  "a$_$b.png",
  "$",
  "$$",
  r"\$x\$ \frac{",
  "x\x00\x1b[31m",
  "byte \udcff",
  "{}%s^_#&~",
  "図\u202e",
]


def seen(path):
  with Image.open(path) as image:
    image.load()
    return image.size


@pytest.mark.filterwarnings("ignore:Glyph")
def test_every_text_is_drawn_as_it_is(tmp_path):
  pictures = [(np.zeros((4, 4, 3), np.uint8), name) for name in NAMES]
  pictures += [([name, name], name) for name in NAMES]
  for title in NAMES:
    plots.picture_row(tmp_path / "a.png", pictures[:2], title=title)
  plots.picture_row(tmp_path / "a.png", pictures, title="all")
  assert min(seen(tmp_path / "a.png")) > 100


@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_text_of_a_curve_is_a_formula(tmp_path, monkeypatch):
  """Names of methods, titles and captions come from configurations."""
  drawn = []
  monkeypatch.setattr(plots, "write_atomically", lambda path, write: drawn.append(write))
  curve = {name: (np.array([1, 10, 1000]), np.array([0.5, 0.4, 0.1])) for name in NAMES}
  plots.precision_at(tmp_path / "a.png", curve, title="$a$b$", caption="$_$")
  plots.precision_recall(tmp_path / "a.png", curve, title="$a$b$", caption="$_$")
  for write in drawn:
    with (tmp_path / "b.png").open("wb") as file:
      write(file)
    assert min(seen(tmp_path / "b.png")) > 100


@pytest.mark.filterwarnings("ignore:Glyph")
def test_numbers_on_the_axis_of_items_are_plain(tmp_path, monkeypatch):
  figures = []
  real = plots._figure
  monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(real(*size)) or figures[-1])
  curve = {"x": (np.array([1, 10, 1000]), np.array([0.5, 0.4, 0.1]))}
  plots.precision_at(tmp_path / "a.png", curve, title="t", caption="c")
  (axis,) = figures[0].axes
  labels = [label.get_text() for label in axis.get_xticklabels()]
  assert {"1", "10", "100", "1,000"} <= set(labels)


def test_a_user_s_own_style_does_not_bring_tex_back(tmp_path):
  with matplotlib.rc_context({"text.usetex": True}):
    plots.picture_row(tmp_path / "a.png", [(np.zeros((4, 4, 3), np.uint8), "a_b")], title="$")
  assert min(seen(tmp_path / "a.png")) > 100


def test_a_text_stands_as_it_was_written():
  dataset = SimpleNamespace(
    captions=["Nike Women's White Running Shoes", "  "],
    texts=np.array([[True, False], [False, True]]),
    words=["nike", "shoes"],
    labels=None,
    names=["a/1.jpg", "a/2.jpg"],
  )
  lines = plots.describe_item(dataset, 0, "text")
  assert " ".join(lines) == dataset.captions[0] and max(map(len, lines)) <= 13
  assert plots.describe_item(dataset, 1, "text") == ["shoes"]
  assert plots.describe_item(dataset, 0, "image") == ["1.jpg"]


@pytest.fixture
def dataset():
  return SimpleNamespace(
    images=np.zeros((4, 2, 2, 3), np.uint8),
    has_pictures=True,
    labels=np.array([0, 1, 0, -1]),
    class_names=["cat", "automobile or van"],
    names=[f"a/IMG_20241130_{row}.jpg" for row in range(4)],
  )


def cells(monkeypatch, dataset, **options):
  drawn = []
  monkeypatch.setattr(plots, "_grid", lambda path, cells, **_: drawn.extend(cells))
  items, distances = np.array([[2, 1], [0, 3]]), np.array([[0, 3], [1, 9]])
  plots.neighbours("a.png", dataset, np.array([0, 1]), items, distances, title="t", **options)
  return [(cell.text, cell.color) for cell in drawn]


def test_a_query_has_its_class_and_neighbours_a_mark_beside_the_colour(monkeypatch, dataset):
  assert cells(monkeypatch, dataset, notes=["AP 1.00", "AP 0.50"]) == [
    ("cat\nAP 1.00", plots.NEUTRAL),
    ("✓ d = 0", plots.RIGHT),
    ("✗ d = 3", plots.WRONG),
    ("automobile or …\nAP 0.50", plots.NEUTRAL),
    ("✗ d = 1", plots.WRONG),
    ("✗ d = 9", plots.WRONG),
  ]


def test_without_labels_a_query_has_the_end_of_its_name(monkeypatch, dataset):
  dataset.labels = None
  found = cells(monkeypatch, dataset)
  assert found[0] == ("…20241130_0.jpg", plots.NEUTRAL) and len(found[0][0]) == 15
  assert found[1] == ("d = 0", plots.NEUTRAL)


def test_a_query_that_has_no_label_has_its_name(monkeypatch, dataset):
  dataset.labels[0] = -1
  (text, _), (first, color), *_ = cells(monkeypatch, dataset)
  assert text == "…20241130_0.jpg" and (first, color) == ("✗ d = 0", plots.WRONG)


def test_two_lines_above_a_picture_have_room(tmp_path):
  heights = []
  for text in ("one", "one\ntwo"):
    cell = plots._Cell(np.zeros((4, 4, 3), np.uint8), text, plots.NEUTRAL)
    plots._grid(tmp_path / "a.png", [cell] * 6, columns=2, title="t", scale=1.0)
    heights.append(seen(tmp_path / "a.png")[1])
  assert heights[1] - heights[0] == round(3 * plots._TEXT * plots._DPI)


def test_a_long_caption_is_wrapped(tmp_path, monkeypatch):
  figures, real = [], plots._figure
  monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(real(*size)) or figures[-1])
  curve = {"x": (np.array([1, 10]), np.array([0.5, 0.4]))}
  plots.precision_at(tmp_path / "a.png", curve, title="t", caption="many words " * 40)
  figure = figures[0]
  box = figure._supxlabel.get_window_extent(figure.canvas.get_renderer())
  assert box.x0 >= 0 and box.x1 <= figure.bbox.width
