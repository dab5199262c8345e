"""Machine code that is kept on disk follows the sources it was made from."""

import os
import subprocess
import sys

CALLEE = """
from udh_jax.cpu.compiled import compiled

@compiled()
def twice(x):
  return {factor} * x
"""
KERNEL = """
import callee
from udh_jax.cpu.compiled import compiled

@compiled()
def kernel(x):
  return callee.twice(x) + 1

print(kernel(3), sum(kernel.stats.cache_hits.values()))
"""


def test_kept_code_is_of_the_callee_as_it_is(tmp_path):
  (tmp_path / "kernel.py").write_text(KERNEL)

  def run(factor):
    (tmp_path / "callee.py").write_text(CALLEE.format(factor=factor))
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    found = subprocess.run(
      [sys.executable, "-B", tmp_path / "kernel.py"],
      env={**os.environ, "PYTHONPATH": paths},
      capture_output=True,
      text=True,
      check=True,
    )
    return tuple(map(int, found.stdout.split()))

  assert run(2) == (7, 0)
  assert run(2) == (7, 1)  # read from disk
  assert run(5) == (16, 0)  # and not where another file of the folder has changed
