"""What the machine lends to this process."""

import os
import pathlib


def num_cores() -> int:
  """Cores that this process may use, which a scheduler or container may have made fewer."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cache_folder() -> pathlib.Path:
  """Where files are kept that can be made again: ``$XDG_CACHE_HOME/udh_jax``; it may not exist."""
  parent = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(parent, "udh_jax")
