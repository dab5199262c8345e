"""Tables, curves and the page of several lengths and seeds."""

import json
import re

import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.evaluation import sweep
from udh_jax.evaluation.scoring import add_metrics, entry_of, score_codes
from udh_jax.report import plots


def entries(workdir, rng, *, seeds, lengths, rows, at=3, empty="zero"):
  """Scores of random codes as runs leave them; the last row is not there at the last length."""
  score = {"at": at, "curve": (2,), "denominator": "retrieved", "ties": "index"}
  score |= {"empty": empty, "radius": 2}
  labels = rng.integers(0, 3, 40)
  places, scores = {seed: workdir / f"seed_{seed}" for seed in seeds}, {}
  for seed, place in places.items():
    place.mkdir(parents=True)
    for length in lengths:
      config = ConfigDict({"bits": length, "seed": seed, "score": score})
      there = rows[:-1] if length == lengths[-1] else rows
      found = {}
      for row in there:
        codes = rng.integers(0, 256, (40, length // 8), dtype=np.uint8)
        found[row] = score_codes(config, codes[:9], codes[9:], labels[:9], labels[9:])
        scores[seed, length, row] = found[row]
      meaning = f"mAP@{at}; made; training seed {seed}"
      add_metrics(place, entry_of(config, meaning, {}, found))
  return places, scores


def cells_of(text, title):
  """Rows of the table below a title, without its rule."""
  lines = text.split(f"{title}\n\n")[1].split("\n\n")[0].splitlines()
  table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
  return [table[0], *table[2:]]


def test_tables_hold_mean_and_deviation_of_every_score(tmp_path, rng):
  rows = ("Own", "ITQ", "LSH")
  places, scores = entries(tmp_path, rng, seeds=(4, 7), lengths=(8, 16), rows=rows)
  sweep.write(tmp_path, places, (8, 16))
  text = (tmp_path / "table.md").read_text()
  of = {
    "mAP@3": lambda s: s.mean_average_precision[s.cutoffs.index(3)],
    "NDCG@3": lambda s: s.ndcg[s.cutoffs.index(3)],
    "Precision within radius 2": lambda s: s.radius_precision,
    "Queries with no item within radius 2": lambda s: s.empty_balls,
  }
  for title, value in of.items():
    digits = 1 if title.startswith("Queries") else 3
    header, own, *others = cells_of(text, title)
    assert header == ["method", "8 bits", "16 bits", "mean"]
    each = np.array([[value(scores[seed, bits, "Own"]) for bits in (8, 16)] for seed in (4, 7)])
    columns = [each[:, 0], each[:, 1], each.mean(axis=1)]
    assert own == [
      "Own",
      *(f"{column.mean():.{digits}f} ± {column.std(ddof=1):.{digits}f}" for column in columns),
    ]
    assert [row[0] for row in others] == ["ITQ", "LSH"]
    assert others[1][1] and others[1][2:] == ["", ""]
  assert "training seeds 4, 7: mean ± sample standard deviation" in text
  stored = json.loads((tmp_path / "table.json").read_text())
  own = [scores[seed, 16, "Own"].radius_precision for seed in (4, 7)]
  assert stored["radius_precision"]["Own"]["16"] == own
  assert sweep.lengths_and_seeds(tmp_path) == ([8, 16], [4, 7])


def test_the_page_links_the_report_of_every_run(tmp_path, rng):
  places, _ = entries(tmp_path, rng, seeds=(0, 1), lengths=(8, 16), rows=("Own", "ITQ"))
  sweep.write(tmp_path, places, (8, 16))
  page = (tmp_path / "report.html").read_text()
  links = re.findall(r'href="(seed[^"]+)"', page)
  assert links == [f"seed_{s}/report_{b}bits.html" for s in (0, 1) for b in (8, 16)]
  assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
  assert page.count("<table>") == 4 and page.count("<img") == 1


def test_pairs_have_a_curve_for_each_direction(tmp_path, rng):
  rows = ("Own, image→text", "Own, text→image", "DJSRH, text→image")
  places, _ = entries(tmp_path, rng, seeds=(0,), lengths=(8, 16), rows=rows)
  sweep.write(tmp_path, places, (8, 16))
  assert sorted(path.name for path in tmp_path.glob("*.png")) == [
    "scores_image_to_text.png",
    "scores_text_to_image.png",
  ]
  assert "<h1>Own: 8, 16 bits, seed 0</h1>" in (tmp_path / "report.html").read_text()


def test_one_length_has_no_curve_and_the_whole_database_is_its_own_cut(tmp_path, rng):
  places, scores = entries(tmp_path, rng, seeds=(0,), lengths=(8,), rows=("Own", "gone"), at=0)
  sweep.write(tmp_path, places, (8,))
  assert not list(tmp_path.glob("*.png"))
  _, own = cells_of((tmp_path / "table.md").read_text(), "mAP@ALL")
  assert own[1] == f"{scores[0, 8, 'Own'].mean_average_precision[-1]:.3f}"


def test_a_score_over_no_query_is_null_and_stays_out_of_no_table(tmp_path, rng):
  rows = ("Own", "gone")
  places, _ = entries(tmp_path, rng, seeds=(0,), lengths=(8,), rows=rows, empty="drop")
  entry = json.loads((places[0] / "metrics.json").read_text())
  entry[0]["curves"]["Own"]["mean_average_precision"] = [None] * 3
  (places[0] / "metrics.json").write_text(json.dumps(entry))
  sweep.write(tmp_path, places, (8,))
  assert json.loads((tmp_path / "table.json").read_text())["map"]["Own"]["8"] == [None]
  assert "nan" in (tmp_path / "table.md").read_text()


def test_a_row_that_is_not_at_every_length_has_empty_cells():
  found = {"DUDCH": {8: [0.5, 0.7], 12: [0.7, 0.9]}, "ITQ": {8: [0.25, 0.25]}}
  table = sweep.table_of(found, (8, 12))
  assert table.header == ["method", "8 bits", "12 bits", "mean"]
  assert table.rows == [
    ["DUDCH", "0.600 ± 0.141", "0.800 ± 0.141", "0.700 ± 0.141"],
    ["ITQ", "0.250 ± 0.000", "", ""],
  ]


def test_bars_are_the_deviation_over_seeds(tmp_path, monkeypatch):
  figures, real = [], plots._figure
  monkeypatch.setattr(plots, "_figure", lambda *size: figures.append(real(*size)) or figures[-1])
  values = {"Own": {8: [0.2, 0.4], 32: [0.5, 0.5]}, "ITQ": {8: [0.1, 0.1]}}
  words = {"title": "mAP over the length", "ylabel": "mAP", "caption": "c"}
  plots.scores_over_lengths(tmp_path / "a.png", values, **words)
  (axis,) = figures[0].axes
  own, itq = axis.containers
  np.testing.assert_allclose(own[0].get_xydata(), [[8, 0.3], [32, 0.5]])
  (bar,) = own[2]
  np.testing.assert_allclose(bar.get_segments()[0][:, 1], 0.3 + np.array([-1, 1]) * np.sqrt(0.02))
  np.testing.assert_allclose(itq[0].get_xydata(), [[8, 0.1]])
  assert [label.get_text() for label in axis.get_xticklabels()] == ["8", "32"]


@pytest.mark.parametrize("damage", ["[]", '{"seeds": 3, "map": {}}', '{"seeds": [0]}'])
def test_a_damaged_table_is_named(tmp_path, damage):
  (tmp_path / "table.json").write_text(damage)
  with pytest.raises(ValueError, match=r"table\.json is damaged"):
    sweep.lengths_and_seeds(tmp_path)
