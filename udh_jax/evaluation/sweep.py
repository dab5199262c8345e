"""Scores of one configuration at several lengths and seeds: tables, a curve and a page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from udh_jax.evaluation.pairs import DIRECTIONS
from udh_jax.evaluation.scoring import METRICS, at_words, position_among, without_nan
from udh_jax.files import read_json, write_json, write_text
from udh_jax.records import LIST, OBJECT, require_fields
from udh_jax.report import plots
from udh_jax.report.page import Section, Table, write_page
from udh_jax.report.table import markdown_table
from udh_jax.runtime.log import say

TABLE = "table.json"
Values = Mapping[str, Mapping[int, Sequence[float]]]  # by row and length, one of each seed


def write(workdir: pathlib.Path, places: Mapping[int, pathlib.Path], bits: Sequence[int]) -> None:
  """Writes ``table.md``, ``table.json`` and ``report.html`` of runs that have been scored.

  Args:
    workdir: Where to write.
    places: Work directories by seed.
    bits: Lengths of the codes.
  """
  entries = {
    (seed, entry["bits"]): entry
    for seed, place in places.items()
    for entry in read_json(place / METRICS)
  }
  first = entries[next(iter(places)), bits[0]]
  meaning = _meaning(first["definition"], list(places))
  at = at_words(first["at"])
  radius = next(iter(first["curves"].values()))["radius"]
  measures = {
    "map": (f"mAP{at}", _at_cutoff("mean_average_precision")),
    "ndcg": (f"NDCG{at}", _at_cutoff("ndcg")),
    "radius_precision": (
      f"Precision within radius {radius}",
      lambda entry, row: entry["curves"][row]["radius_precision"],
    ),
    "empty_balls": (
      f"Queries with no item within radius {radius}",
      lambda entry, row: entry["curves"][row]["empty_balls"],
    ),
  }
  values = {
    name: _collect(entries, places, bits, measure) for name, (_, measure) in measures.items()
  }
  tables = {
    name: table_of(values[name], bits, digits=1 if name == "empty_balls" else 3)
    for name in measures
  }
  parts = [f"{measures[name][0]}\n\n{markdown_table(*table)}" for name, table in tables.items()]
  write_text(workdir / "table.md", "\n\n".join([*parts, meaning]) + "\n")
  write_json(
    workdir / TABLE,
    {"definition": meaning, "seeds": list(places), "bits": list(bits), **without_nan(values)},
  )
  say("\n".join(["", *parts[:1], "", meaning, ""]))
  sections = [
    Section(title, [meaning] if name == "map" else [], [tables[name]])
    for name, (title, _) in measures.items()
  ]
  if len(bits) > 1:
    sections[1:1] = _drawn(workdir, values["map"], measures["map"][0], meaning)
  sections.append(_runs(workdir, places, bits))
  path = workdir / "report.html"
  write_page(
    path,
    title=f"{_name_and_direction(next(iter(values['map'])))[0]}: {_listed(bits)} bits, "
    f"{'seed' if len(places) == 1 else 'seeds'} {_listed(list(places))}",
    subtitle="Every length with every seed, and the mean over lengths.",
    sections=sections,
  )
  say(f"Report: {path}")


def lengths_and_seeds(workdir: pathlib.Path) -> tuple[list[int], list[int]]:
  """Which lengths and seeds the table of a work directory holds.

  Raises:
    InputError: If the table is damaged.
  """
  path = workdir / TABLE
  found = require_fields(path, read_json(path), {"seeds": LIST, "map": OBJECT})
  bits = {int(length) for by_length in found["map"].values() for length in by_length}
  return sorted(bits), [int(seed) for seed in found["seeds"]]


def _meaning(definition: str, seeds: Sequence[int]) -> str:
  if len(seeds) == 1:
    return definition
  of_seeds = f"training seeds {_listed(seeds)}: mean ± sample standard deviation"
  return definition.replace(f"training seed {seeds[0]}", of_seeds)


def _at_cutoff(field: str):
  """Reads a score at the cut-off of the definition; the last one is the whole database."""

  def read(entry: Mapping[str, Any], row: str) -> float:
    curve = entry["curves"][row]
    return curve[field][position_among(curve["cutoffs"], entry["at"])]

  return read


def _collect(entries, places, bits, measure) -> dict[str, dict[int, list[float]]]:
  found: dict[str, dict[int, list[float]]] = {}
  for length in bits:
    for seed in places:
      entry = entries[seed, length]
      for row in entry["curves"]:
        value = measure(entry, row)
        number = float("nan") if value is None else float(value)
        found.setdefault(row, {}).setdefault(length, []).append(number)
  return found


def table_of(values: Values, bits: Sequence[int], *, digits: int = 3) -> Table:
  """A row a method, a column a length, and the mean over all lengths.

  The last column is the mean over lengths of each seed, so that its deviation is one over seeds. It
  is empty where a row is not there at every length, as a baseline of few features may not be.

  Args:
    values: Of every seed, by row and length.
    bits: The columns.
    digits: After the point.
  """

  def cell(of_seeds):
    spread = f" ± {np.std(of_seeds, ddof=1):.{digits}f}" if len(of_seeds) > 1 else ""
    return f"{np.mean(of_seeds):.{digits}f}{spread}"

  header = ["method", *(f"{length} bits" for length in bits), "mean"]
  rows = []
  for name, by_length in values.items():
    cells = [cell(by_length[length]) if length in by_length else "" for length in bits]
    everywhere = all(length in by_length for length in bits)
    mean = cell(np.mean([by_length[length] for length in bits], axis=0)) if everywhere else ""
    rows.append([name, *cells, mean])
  return Table(header, rows)


def _drawn(workdir, values: Values, title: str, caption: str) -> list[Section]:
  """A curve over lengths, or for pairs one for each direction."""
  by_direction: dict[str, dict[str, Mapping[int, Sequence[float]]]] = {}
  for row, by_length in values.items():
    name, direction = _name_and_direction(row)
    by_direction.setdefault(direction, {})[name] = by_length
  found = []
  for direction, curves in by_direction.items():
    words = f"{title}, {direction}" if direction else title
    name = f"scores_{'_to_'.join(DIRECTIONS[direction])}" if direction else "scores"
    path = workdir / f"{name}.png"
    heading = f"{words} over the length"
    plots.scores_over_lengths(path, curves, title=heading, ylabel=words, caption=caption)
    text = "The mean over the seeds; bars are one sample standard deviation."
    found.append(Section(heading, [text], picture=path))
  return found


def _runs(workdir, places, bits) -> Section:
  """Where the report of each run is."""
  links = [
    (f"seed {seed}, {length} bits", f"{place.relative_to(workdir)}/report_{length}bits.html")
    for seed, place in places.items()
    for length in bits
  ]
  return Section("Runs", ["Plots and galleries of each run:"], links=links)


def _name_and_direction(row: str) -> tuple[str, str]:
  """A row's method, and its direction where items are pairs, else nothing."""
  name, _, direction = row.rpartition(", ")
  return (name, direction) if direction in DIRECTIONS else (row, "")


def _listed(numbers: Sequence[int]) -> str:
  return ", ".join(map(str, numbers))
