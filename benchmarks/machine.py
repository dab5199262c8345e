"""What every benchmark says of the machine, and how memory is measured."""

import argparse
import importlib.metadata
import json
import os
import pathlib
import platform
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any


def describe(*more: object) -> str:
  """Processor, cores, versions of Python and JAX, load, and what else is said, in one line."""
  parts = [
    _processor(),
    f"{len(os.sched_getaffinity(0))} cores",
    f"Python {platform.python_version()}",
    f"jax {importlib.metadata.version('jax')}",
    f"load {os.getloadavg()[0]:.1f}",
  ]
  return ", ".join([*parts, *map(str, more)])


def _processor() -> str:
  for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
    if line.startswith("model name"):
      return line.split(":")[1].strip()
  return platform.processor()


def peak_memory() -> float:
  """Peak resident memory of this process in GiB."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured_apart(
  parser: argparse.ArgumentParser, work: Callable[[argparse.Namespace], dict[str, Any]]
) -> tuple[argparse.Namespace, dict[str, Any]]:
  """Runs ``work`` in a process of its own, so that the peak of its memory is its own too.

  Args:
    parser: Of the program's arguments.
    work: Gets them and returns what it measured, JSON values by name.

  Returns:
    The arguments and what ``work`` returned.
  """
  parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
  arguments = parser.parse_args()
  if arguments.inside:
    print(json.dumps(work(arguments)))
    sys.exit()
  command = [sys.executable, *sys.argv, "--inside"]
  out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
  return arguments, json.loads(out.splitlines()[-1])
