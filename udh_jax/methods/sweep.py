"""One configuration at several code lengths and seeds, and the table of all of it."""

import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.evaluation.scoring import without_nan
from udh_jax.files import read_json, write_json, write_text
from udh_jax.methods.run import require_valid, train
from udh_jax.report.table import markdown_table
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import say


def sweep(
  config: ConfigDict, workdir: str | pathlib.Path, *, bits: Sequence[int], seeds: Sequence[int]
) -> dict[str, dict[int, list[float]]]:
  """Runs, or takes up, a configuration at every length with every seed.

  A seed has a work directory of its own, ``seed_{seed}``, in which all lengths share the stages
  that do not depend on them. Those that do not depend on the seed, such as the features of a
  published network, are made for the first and taken over by the others. The table goes to
  ``table.md`` and ``table.json``.

  Args:
    config: From a file in ``configs/``; ``bits`` and ``seed`` are replaced. ``data.seed``, which
      draws the split, stays.
    workdir: Holds the work directories of the seeds.
    bits: Lengths of the codes.
    seeds: Seeds of everything that is drawn but the split.

  Returns:
    mAP by method, length and position of the seed; empty in other processes than 0.

  Raises:
    InputError: If a length or seed is missing or given twice, and as `udh_jax.methods.run.train`.
  """
  for name, values in (("bits", bits), ("seeds", seeds)):
    require(
      len(values) > 0 and len(set(values)) == len(values),
      f"--{name} is {','.join(map(str, values))!r}; give different numbers, comma-separated.",
    )
  runs = []
  for seed, length in itertools.product(seeds, bits):
    run = config.copy_and_resolve_references()
    run.bits, run.seed = length, seed
    require_valid(run)  # all of them, before hours go into the first
    runs.append(run)
  workdir = pathlib.Path(workdir)
  found: dict[str, dict[int, list[float]]] = {}
  places = {seed: workdir / f"seed_{seed}" for seed in seeds}
  for run in runs:
    beside = [place for seed, place in places.items() if seed != run.seed]
    for name, value in train(run, places[run.seed], beside=beside).items():
      found.setdefault(name, {}).setdefault(run.bits, []).append(value)

  def write():
    if not found:  # nothing was scored
      return
    entries = read_json(places[seeds[0]] / "metrics.json")
    meaning = next(entry["definition"] for entry in entries if entry["bits"] == bits[0])
    if len(seeds) > 1:
      of_seeds = f"training seeds {', '.join(map(str, seeds))}: mean ± sample standard deviation"
      meaning = meaning.replace(f"training seed {seeds[0]}", of_seeds)
    text = f"{table(found, bits)}\n\n{meaning}"
    write_text(workdir / "table.md", f"{text}\n")
    write_json(
      workdir / "table.json",
      {"definition": meaning, "seeds": list(seeds), "map": without_nan(found)},
    )
    say(f"\n{text}\n")

  mesh_lib.on_main("write the table", write)
  return found


def table(found: dict[str, dict[int, list[float]]], bits: Sequence[int]) -> str:
  """A Markdown table: a row a method, a column a length, and the mean over all lengths.

  The last column is the mean over lengths of each seed, so that its deviation is one over seeds. It
  is empty where a row is not there at every length, as a baseline of few features may not be.

  Args:
    found: Of `sweep`.
    bits: The columns.
  """

  def cell(values):
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"

  header = ["method", *(f"{length} bits" for length in bits), "mean"]
  rows = []
  for name, by_length in found.items():
    cells = [cell(by_length[length]) if length in by_length else "" for length in bits]
    everywhere = all(length in by_length for length in bits)
    mean = cell(np.mean([by_length[length] for length in bits], axis=0)) if everywhere else ""
    rows.append([name, *cells, mean])
  return markdown_table(header, rows)
