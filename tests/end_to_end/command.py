"""Runs train.py and eval.py as a user does: in processes of their own."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]

# The quickstart's stages with fewer steps: what is tested here is not how well it learns.
SHORT = (
  "--config.pretrain.steps=6",
  "--config.pretrain.batch_size=32",
  "--config.finetune.steps=6",
  "--config.finetune.batch_size=36",
  "--config.distill.steps=6",
  "--config.distill.batch_size=36",
  "--config.cluster.num_restarts=2",
  "--config.rounds=1",
  "--config.bits=16",
  "--config.checkpoint_every=2",
)


def environment(devices: int = 1) -> dict[str, str]:
  """The environment of a program that finds so many CPU devices and compiles as tests do."""
  inherited = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
  return inherited | {
    "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}",
    "JAX_PLATFORMS": "cpu",
    "PYTHONUNBUFFERED": "1",
  }


def run(program: str, *arguments: str, status: int = 0) -> str:
  """Runs a program of the repository's root to its end and returns what it printed."""
  done = subprocess.run(
    [sys.executable, str(ROOT / program), *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    cwd=ROOT,
    env=environment(),
    timeout=600,
  )
  assert done.returncode == status, done.stdout
  return done.stdout


def quickstart(workdir: pathlib.Path, *arguments: str) -> tuple[str, ...]:
  """Arguments of train.py for the shortened quickstart."""
  return ("--config=configs/quickstart.py", f"--workdir={workdir}", *SHORT, *arguments)


def stage_output(workdir: pathlib.Path, stage: str, *, num_rows: int = 1797) -> dict:
  """Outputs of a finished stage, as they lie on disk, on one device; digits have 1797 rows."""
  import jax

  from udh_jax.runtime import checkpoint
  from udh_jax.runtime import mesh as mesh_lib

  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  return checkpoint.load(workdir / "stages" / stage / "output", num_rows=num_rows, mesh=mesh)


def codes(workdir: pathlib.Path, bits: int = 16) -> np.ndarray:
  """Packed codes of all digits."""
  return np.asarray(stage_output(workdir, f"encode_{bits}bits")["codes"])


def metrics(workdir: pathlib.Path) -> list[dict]:
  """What the run wrote of its scores."""
  return json.loads((workdir / "metrics.json").read_text())
