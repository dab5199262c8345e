"""A whole run: configuration in, codes, scores and pictures out."""

import pathlib
import time
from typing import Any

import jax
from ml_collections import ConfigDict

from udh_jax.data.dataset import load_dataset
from udh_jax.data.protocol import write_manifest
from udh_jax.errors import InputError, require
from udh_jax.files import read_json, write_json
from udh_jax.methods.registry import method
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import format_seconds, say
from udh_jax.runtime.runner import Runner, prepare_workdir
from udh_jax.runtime.stage import Context


def _context(config: ConfigDict) -> Context:
  """Finds the devices and the images."""

  def progress(done, total):
    say(f"[data] {done:,}/{total:,} images read")

  context = Context(mesh_lib.make_mesh(), load_dataset(config.data, progress=progress))
  device = context.mesh.devices.flat[0]
  hosts = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
  say(f"[devices] {context.mesh.size} x {device.device_kind}{hosts}")
  say(f"[data] {context.dataset.protocol}")
  return context


def train(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, float]:
  """Runs, or takes up, all stages of ``config`` in ``workdir`` and scores the codes.

  Args:
    config: From a file in ``configs/``.
    workdir: Holds checkpoints, metrics, events and pictures; made if missing.

  Returns:
    mAP by method; empty where the images have no labels.

  Raises:
    InputError: If the configuration or the data have no sense, the work directory belongs to
      another configuration or cannot be written to.
    TrainingError: If a loss turns non-finite.
  """
  started = time.perf_counter()
  workdir = pathlib.Path(workdir)
  chosen, stages = method(config)
  prepare_workdir(workdir)
  context = _context(config)
  if "cluster" in config:
    available, wanted = len(context.dataset.splits.train), config.cluster.num_clusters
    require(
      available >= wanted,
      f"cluster.num_clusters is {wanted}, but there are {available} training images; lower it or "
      "give more images.",
    )
  runner = Runner(context, config, workdir)
  outputs = runner.run(stages)
  if mesh_lib.is_main():
    write_json(workdir / "config.json", config.to_dict())
    write_manifest(context.dataset, workdir / "splits.json")
  scores = chosen.evaluate(context, config, chosen.title, stages, outputs, workdir)
  say(f"{workdir}: finished in {format_seconds(time.perf_counter() - started)}")
  return scores


def score(workdir: str | pathlib.Path, overrides: dict[str, Any] | None = None) -> dict[str, float]:
  """Scores a finished work directory again, without training.

  Args:
    workdir: Where `train` has finished.
    overrides: Values that replace the stored configuration's, by dotted field: where the data are
      now, or another definition of the score.

  Returns:
    mAP by method.

  Raises:
    InputError: If ``workdir`` holds no finished run, or a field does not exist.
  """
  workdir = pathlib.Path(workdir)
  path = workdir / "config.json"
  if not path.exists():
    raise InputError(f"{workdir} holds no finished run (no config.json); run train.py first.")
  config = ConfigDict(read_json(path))
  for field, value in (overrides or {}).items():
    try:
      with config.ignore_type():
        config.update_from_flattened_dict({field: value})
    except (KeyError, AttributeError):
      raise InputError(f"The stored configuration of {workdir} has no field {field}.") from None
  context = _context(config)
  chosen, stages = method(config)
  outputs = Runner(context, config, workdir).run(stages, restore_only=True)
  return chosen.evaluate(context, config, chosen.title, stages, outputs, workdir)
