"""The benchmark for accelerators still runs, here on a CPU and on nothing but what it asks for."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOT_NEEDED = ("torch", "faiss", "tensorflow", "sklearn", "h5py", "matplotlib", "PIL")


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
