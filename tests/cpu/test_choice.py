"""Which kernels serve a call: on CPUs numba's, under a trace JAX's, and whichever are asked for."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.cpu import choice
from udh_jax.errors import InputError
from udh_jax.retrieval import search

ROOT = pathlib.Path(__file__).parents[2]
CODES = np.zeros((3, 2), np.uint8)


@pytest.fixture(autouse=True)
def with_numba(monkeypatch):
  pytest.importorskip("numba")
  monkeypatch.delenv(choice.VARIABLE, raising=False)


def test_arrays_in_memory_are_for_numba(mesh):
  assert choice.use_numba(CODES, jnp.asarray(CODES), None)
  assert choice.use_numba(jax.device_put(CODES, jax.devices()[3]))
  split = jax.device_put(np.zeros(8), jax.NamedSharding(mesh, jax.P("data")))
  assert not choice.use_numba(CODES, split)


def test_a_trace_is_for_jax():
  seen = []
  jax.jit(lambda codes: seen.append(choice.use_numba(CODES, codes)))(CODES)
  assert seen == [False]
  found = jax.jit(lambda codes: search(codes, CODES, 2))(CODES)
  assert found.indices.tolist() == 3 * [[0, 1]]


def test_other_devices_are_for_jax(monkeypatch):
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert not choice.use_numba(CODES)
  assert choice.use_numba(jnp.asarray(CODES))  # which is known to lie on a CPU


def test_kernels_can_be_asked_for(monkeypatch):
  with choice.kernels("jax"):
    assert not choice.use_numba(CODES)
    with choice.kernels("numba"):
      assert choice.use_numba(CODES)
    assert not choice.use_numba(CODES)
  monkeypatch.setenv(choice.VARIABLE, "jax")
  assert not choice.use_numba(CODES)


def test_an_unknown_name_is_refused(monkeypatch):
  with pytest.raises(InputError, match="kernels is 'cython'"), choice.kernels("cython"):
    pass
  monkeypatch.setenv(choice.VARIABLE, "fast")
  with pytest.raises(InputError, match="UDH_JAX_CPU_KERNELS is 'fast'; choose one of"):
    search(CODES, CODES, 1)


def test_without_numba_jax_serves(monkeypatch):
  monkeypatch.setitem(sys.modules, "numba", None)
  choice._installed.cache_clear()
  try:
    assert not choice.use_numba(CODES)
    assert search(CODES, CODES, 2).indices.tolist() == 3 * [[0, 1]]
    with (
      pytest.raises(InputError, match=r'run pip install "udh_jax.cpu."'),
      choice.kernels("numba"),
    ):
      pass
  finally:
    choice._installed.cache_clear()


@pytest.mark.parametrize("error", ["ImportError", "OSError"])
def test_a_numba_that_cannot_be_imported_is_said_once_and_jax_serves(tmp_path, error):
  (tmp_path / "numba.py").write_text(f"raise {error}('numba needs NumPy 1.0')")
  program = """
import sys
import udh_jax
from udh_jax.cpu import choice
from udh_jax.errors import InputError
import numpy as np

assert "numba" not in sys.modules
codes = np.zeros((3, 2), np.uint8)
for _ in range(2):
  assert udh_jax.HammingIndex(codes, "abc").search(codes, 1, engine="jax").indices.shape == (3, 1)
try:
  with choice.kernels("numba"):
    pass
except InputError as error:
  print(error)
"""
  environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
  done = subprocess.run(
    [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
  )
  assert "is 'numba', which is installed and cannot be imported (numba needs" in done.stdout
  assert done.stderr.count("cannot be imported (numba needs NumPy 1.0): JAX serves") == 1
