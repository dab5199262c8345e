"""The benchmark for accelerators still runs, here on a CPU and on nothing but what it asks for."""

import ast
import importlib
import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOT_NEEDED = ("torch", "faiss", "tensorflow", "sklearn", "h5py", "matplotlib", "PIL")


SCRIPTS = sorted(
  path for folder in ("benchmarks", "tools") for path in (ROOT / folder).glob("*.py")
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_import_what_is_there(path):
  """Not run: what they compare with may not be installed."""
  imports = [node for node in ast.walk(ast.parse(path.read_text())) if type(node) is ast.ImportFrom]
  for node in imports:
    if node.module and node.module.split(".")[0] == "udh_jax":
      module = importlib.import_module(node.module)
      for alias in node.names:
        name = f"{node.module}.{alias.name}"
        assert hasattr(module, alias.name) or importlib.util.find_spec(name), name


@pytest.mark.slow
@pytest.mark.long
def test_the_accelerator_benchmark_runs_and_writes_its_rows(tmp_path):
  path = tmp_path / "rows.json"
  program = (
    "import runpy, sys\n"
    f"sys.modules |= dict.fromkeys({NOT_NEEDED})\n"  # None: an import of them fails
    f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
    f"sys.argv = ['accelerator.py', '--small', '--json', {str(path)!r}]\n"
    f"runpy.run_path({str(ROOT / 'benchmarks' / 'accelerator.py')!r}, run_name='__main__')\n"
  )
  run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
  assert run.returncode == 0, run.stdout + run.stderr
  assert "checked against the CPU" in run.stdout
  found = json.loads(path.read_text())
  assert found["small"]
  whats = " ".join(row["what"] for row in found["rows"])
  for part in ("search", "lax.top_k", "mAP", "k-means", "Sinkhorn", "DCC", "training", "encode"):
    assert part in whats
  assert all(0 < row["least"] <= row["seconds"] <= row["most"] for row in found["rows"])
