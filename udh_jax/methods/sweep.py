"""One configuration at several code lengths and seeds, and the table of all of it."""

import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.evaluation import sweep as evaluation
from udh_jax.methods.run import is_run, require_valid, score, stored_config, train
from udh_jax.runtime import mesh as mesh_lib

ByLength = dict[str, dict[int, list[float]]]


def sweep(
  config: ConfigDict, workdir: str | pathlib.Path, *, bits: Sequence[int], seeds: Sequence[int]
) -> ByLength:
  """Runs, or takes up, a configuration at every length with every seed.

  A seed has a work directory of its own, ``seed_{seed}``, in which all lengths share the stages
  that do not depend on them. Those that do not depend on the seed, such as the features of a
  published network, are made for the first and taken over by the others. Tables of all go to
  ``table.md``, ``table.json`` and ``report.html``.

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
  workdir = pathlib.Path(workdir)
  places = _places(workdir, seeds)

  def run(config):
    beside = [place for seed, place in places.items() if seed != config.seed]
    return train(config, places[config.seed], beside=beside)

  return _each(config, workdir, bits, seeds, run)


def score_again(
  workdir: str | pathlib.Path,
  config: ConfigDict | None = None,
  *,
  bits: Sequence[int] | None = None,
) -> ByLength:
  """Scores all that `sweep` left again, without training, and writes its tables anew.

  Args:
    workdir: Of `sweep`.
    config: `stored_config` of one seed with fields replaced, as of `udh_jax.methods.run.score`;
      ``bits`` and ``seed`` are replaced here. None takes that of the first seed.
    bits: Lengths; None takes those of the table.

  Returns:
    As of `sweep`.

  Raises:
    InputError: If ``workdir`` holds no finished sweep, and as `udh_jax.methods.run.score`.
  """
  workdir = pathlib.Path(workdir)
  require(is_sweep(workdir), f"{workdir} holds no finished runs of several seeds or lengths.")
  lengths, seeds = evaluation.lengths_and_seeds(workdir)
  places = _places(workdir, seeds)
  config = stored_config_of_first(workdir) if config is None else config
  wanted = lengths if bits is None else bits
  return _each(config, workdir, wanted, seeds, lambda run: score(places[run.seed], run))


def is_sweep(workdir: str | pathlib.Path) -> bool:
  """Whether `sweep` has scored runs in a work directory, which holds no run of its own."""
  workdir = pathlib.Path(workdir)
  return (workdir / evaluation.TABLE).exists() and not is_run(workdir)


def stored_config_of_first(workdir: str | pathlib.Path) -> ConfigDict:
  """The stored configuration of the first seed of a finished sweep."""
  workdir = pathlib.Path(workdir)
  _, seeds = evaluation.lengths_and_seeds(workdir)
  return stored_config(_places(workdir, seeds)[seeds[0]])


def _places(workdir: pathlib.Path, seeds: Sequence[int]) -> dict[int, pathlib.Path]:
  return {seed: workdir / f"seed_{seed}" for seed in seeds}


def _each(
  config: ConfigDict,
  workdir: pathlib.Path,
  bits: Sequence[int],
  seeds: Sequence[int],
  run: Callable[[ConfigDict], Mapping[str, float]],
) -> ByLength:
  """Calls ``run`` for every length and seed, which gives scores by row, and writes the tables."""
  for name, values in (("bits", bits), ("seeds", seeds)):
    require(
      len(values) > 0 and len(set(values)) == len(values),
      f"--{name} is {','.join(map(str, values))!r}; give different numbers, comma-separated.",
    )
  configs = []
  for seed, length in itertools.product(seeds, bits):
    one = config.copy_and_resolve_references()
    one.bits, one.seed = length, seed
    require_valid(one)  # all of them, before hours go into the first
    configs.append(one)
  found: ByLength = {}
  for one in configs:
    for name, value in run(one).items():
      found.setdefault(name, {}).setdefault(one.bits, []).append(value)

  def write():
    if found:  # nothing is, where there are no labels
      evaluation.write(workdir, _places(workdir, seeds), bits)

  mesh_lib.on_main("write the tables", write)
  return found
