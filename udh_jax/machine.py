"""What the machine lends to this process."""

import functools
import hashlib
import math
import os
import pathlib
import platform

CGROUP = pathlib.Path("/sys/fs/cgroup")  # where Linux tells a container's limits


def num_cores() -> int:
  """Cores that this process may use, which a scheduler or container may have made fewer."""
  count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  return max(1, math.ceil(min(count, _quota(CGROUP))))


@functools.cache
def _quota(folder: pathlib.Path) -> float:
  """Cores' worth of time that Linux gives a container, as by ``docker run --cpus``."""
  try:
    if (folder / "cpu.max").exists():
      limit, period = (folder / "cpu.max").read_text().split()
    else:  # the older kind
      limit, period = (
        (folder / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period")
      )
    return int(limit) / int(period) if int(limit) > 0 else math.inf
  except (OSError, ValueError, ZeroDivisionError):  # no Linux, or no limit ("max")
    return math.inf


def cache_folder() -> pathlib.Path:
  """Where files are kept that can be made again: ``$XDG_CACHE_HOME/udh_jax``; it may not exist."""
  parent = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
  return pathlib.Path(parent, "udh_jax")


def keep_compiled() -> None:
  """Lets JAX keep what it compiles, so that later programs of this user start at once.

  Does nothing where the user has said where to keep it (``JAX_COMPILATION_CACHE_DIR``), in a run of
  several processes, or where the folder cannot be made.
  """
  import jax

  chosen = jax.config.values["jax_compilation_cache_dir"] is not None
  if not chosen and not jax.distributed.is_initialized():
    folder = cache_folder() / "compiled" / _processor()
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # JAX would complain of each program
      return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
  """A name of what programs are compiled for: home folders may be shared by unlike machines."""
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:
    lines = []
  told = ("flags", "Features", "model name")
  facts = sorted({line for line in lines if line.startswith(told)}) or [platform.processor()]
  return f"{platform.machine()}-{hashlib.sha256(repr(facts).encode()).hexdigest()[:8]}"
