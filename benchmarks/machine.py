"""What every benchmark says of the machine, and how time and memory are measured."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

_EXTENSIONS = (  # of which the widest is named, and what counts bits
  "avx2",
  "avx512bw",
  "avx512vnni",
  "avx512_vnni",
  "avx512_vpopcntdq",
  "avx512_bitalg",
  "amx_tile",
  "asimd",
  "sve",
)


def describe(*more: object) -> str:
  """Processor, its vector extensions, threads, versions, load, and what else is said, in a line."""
  parts = [
    _cpu("model name") or platform.processor() or platform.machine(),
    "/".join(_extensions()) or "no vector extensions known",
    f"{threads()} threads",
    f"Python {platform.python_version()}",
    *(f"{name} {_version(name)}" for name in ("jax", "numpy", "numba") if _version(name)),
    f"load {os.getloadavg()[0]:.1f}",
  ]
  return ", ".join([*parts, *map(str, more)])


def threads() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu(field: str) -> str:
  path = pathlib.Path("/proc/cpuinfo")
  for line in path.read_text().splitlines() if path.exists() else ():
    if line.split(":")[0].strip() == field:
      return line.split(":")[1].strip()
  return ""


def _extensions() -> list[str]:
  found = (_cpu("flags") or _cpu("Features")).split()
  return [name for name in _EXTENSIONS if name in found]


def _version(name: str) -> str:
  try:
    return importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return ""


class Times(NamedTuple):
  """What several runs of a function took.

  Attributes:
    runs: Seconds. float64 array of shape ``[runs]``.
    result: What the last one returned.
  """

  runs: np.ndarray
  result: Any

  def each(self, count: int) -> "Times":
    """Milliseconds for each of so many things that a run handled."""
    return self._replace(runs=1e3 * self.runs / count)

  def ratio_to(self, other: "Times") -> str:
    """How many times the other's time this one took: the median of pairs, and their quartiles.

    A pair is two runs made one soon after the other, so that what else the machine does meets both.
    """
    low, middle, high = np.percentile(self.runs / other.runs, [25, 50, 75])
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"

  def __str__(self) -> str:
    return f"{np.median(self.runs):.3g} ({self.runs.min():.3g} to {self.runs.max():.3g})"


def paired(runs: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Times]:
  """Times of several functions that take turns, after one call of each that is not counted.

  Args:
    runs: Functions by name; what they start has to be done when they return.
    repeats: Turns.

  Returns:
    Their times by name.
  """
  for run in runs.values():
    run()
  seconds, results = {name: [] for name in runs}, {}
  for turn in range(repeats):
    for name in runs if turn % 2 else list(runs)[::-1]:
      time.sleep(0.05)  # threads of the one before go on spinning for a while
      start = time.perf_counter()
      results[name] = runs[name]()
      seconds[name].append(time.perf_counter() - start)
  return {name: Times(np.array(values), results[name]) for name, values in seconds.items()}


def peak_memory() -> float:
  """Peak resident memory of this process in GiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def parsed(
  parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], dict[str, Any]]
) -> argparse.Namespace:
  """The program's arguments; in a process that `run_again` has started, does its work and ends.

  Args:
    parser: Of the program's arguments.
    work: Gets them and returns what it measured, JSON values by name.
  """
  parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.inside:
    print(json.dumps(work(arguments)))
    sys.exit()
  return arguments


def run_again(*more: str, **environment: str) -> dict[str, Any]:
  """Has `parsed` do the work in a process of its own, so that the peak of its memory is its own.

  Args:
    *more: Arguments that are added to this program's.
    **environment: Variables that are added.

  Returns:
    What ``work`` measured.
  """
  command = [sys.executable, *sys.argv, *more, "--inside"]
  found = os.environ | environment
  out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=found).stdout
  return json.loads(out.splitlines()[-1])
