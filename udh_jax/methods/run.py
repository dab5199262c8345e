"""A whole run: configuration in, codes, scores and pictures out."""

import contextlib
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from udh_jax.configuration import flatten, select
from udh_jax.data import registry as data_registry
from udh_jax.data.protocol import Splits, write_manifest
from udh_jax.encoders.loading import on_hub
from udh_jax.errors import InputError, require
from udh_jax.evaluation.found import Codes
from udh_jax.evaluation.images import AUTOMATIC
from udh_jax.evaluation.run import evaluate, gather
from udh_jax.files import held, read_json, write_json
from udh_jax.methods import automatic, fields
from udh_jax.methods.registry import make_plan
from udh_jax.models.weights import require_there
from udh_jax.records import OBJECT, TEXT, require_fields
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import format_seconds, say
from udh_jax.runtime.plan import Plan
from udh_jax.runtime.runner import Runner, is_finished, prepare_workdir
from udh_jax.runtime.stage import Context


def _context(config: ConfigDict, devices: Sequence[jax.Device] | None = None) -> Context:
  """Finds the devices and the images."""

  def progress(done, total):
    say(f"[data] {done:,}/{total:,} images read")

  mesh = mesh_lib.make_mesh(devices)
  context = Context(mesh, data_registry.load_dataset(config.data, progress=progress))
  device = context.mesh.devices.flat[0]
  hosts = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
  say(f"[devices] {context.mesh.size} x {device.device_kind}{hosts}")
  for note in (context.dataset.protocol, *context.dataset.notes):
    say(f"[data] {note}")
  dataset = context.dataset
  digests = (
    dataset.protocol,
    dataset.digest,
    dataset.images_digest,
    dataset.contents_digest,
    dataset.texts_digest,
  )
  mesh_lib.require_same("The data", "\n".join(map(str, digests)))
  return context


def _require_same_config(config: ConfigDict) -> None:
  """Refuses processes of one run with other fields; where files are, each may have its own."""
  values = flatten(config)
  values = {name: value for name, value in values.items() if name not in _PLACES}
  mesh_lib.require_same("The configuration", repr(sorted(values.items())))


CONFIG = "config.json"  # in a work directory: what its run was made with

# Fields that say where files are.
_PLACES = ("data.path", "data.folder", "teacher.weights")

# By no stage, but by the runner and by scoring.
_READ_BESIDES = (
  "checkpoint_every",
  *(f"score.{name}" for name in ("at", "curve", "denominator", "ties", "empty", "radius")),
)


def require_valid(config: ConfigDict) -> None:
  """Refuses what is invalid in a configuration, before anything is read or made.

  What depends on the images, such as enough of them, is checked when they are known.

  Args:
    config: Whole; fields may be "auto".

  Raises:
    InputError: If a field is invalid.
  """
  fields.require_valid(config, but=automatic.AUTO)
  whole = automatic.provisional(config)
  try:
    for stage in make_plan(whole).stages:
      stage.read(whole)
    select(whole, _READ_BESIDES)
  except (AttributeError, KeyError) as error:
    raise InputError(
      f"The configuration lacks a field ({' '.join(str(error).split())}); begin with the preset "
      "of the method, which has them all."
    ) from error
  data_registry.require_valid(config.data)


def with_absolute_paths(config: ConfigDict) -> ConfigDict:
  """A copy whose files and folders are named from the root on, as they are stored with a run."""
  config = config.copy_and_resolve_references()
  for section, name in (field.split(".") for field in _PLACES):
    part = config.get(section)
    path = part.get(name) if isinstance(part, ConfigDict) else None
    if isinstance(path, str) and path and not on_hub(path) and "://" not in path:
      part[name] = os.path.abspath(os.path.expanduser(path))
  return config


def train(
  config: ConfigDict,
  workdir: str | pathlib.Path,
  *,
  devices: Sequence[jax.Device] | None = None,
  beside: Sequence[str | pathlib.Path] = (),
) -> dict[str, float]:
  """Runs, or takes up, all stages of ``config`` in ``workdir`` and scores the codes.

  Args:
    config: From a file in ``configs/``.
    workdir: Holds checkpoints, metrics, events and pictures; made if missing.
    devices: That the images are split over; None takes all of all processes.
    beside: Other work directories, from which stages are taken that would be the same.

  Returns:
    mAP by method; empty where the images have no labels, and in other processes than 0.

  Raises:
    InputError: If the configuration or the data are invalid, the work directory belongs to
      another configuration or method, lies among the pictures, cannot be written to, or another
      program is at work in it.
    TrainingError: If a loss turns non-finite.
  """
  started = time.perf_counter()
  workdir = pathlib.Path(workdir)
  config = with_absolute_paths(config)
  require_valid(config)
  _require_apart(workdir, config)
  with _alone_in(workdir):
    _require_same_method(workdir, config)
    scores = _run(config, workdir, devices, beside)
  say(f"{workdir}: finished in {format_seconds(time.perf_counter() - started)}")
  return scores


@contextlib.contextmanager
def _alone_in(workdir: pathlib.Path) -> Iterator[None]:
  """Makes the work directory and keeps other programs from it."""
  prepare_workdir(workdir)
  with contextlib.ExitStack() as stack:
    mesh_lib.on_main("take the work directory", lambda: stack.enter_context(held(workdir)))
    yield


def _require_apart(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Refuses a work directory among the pictures: what a run draws would be read as pictures."""
  if config.data.name != "folder" or not config.data.path:
    return
  pictures = os.path.realpath(config.data.path)
  require(
    not os.path.join(os.path.realpath(workdir), "").startswith(os.path.join(pictures, "")),
    f"The work directory {workdir} lies in the folder of pictures {config.data.path}, so that what "
    "a run draws would be read as pictures; name one beside it with --workdir.",
  )


def _require_same_method(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Refuses the work directory of another method, whose encoder and scores would be replaced."""
  try:
    method = stored_config(workdir).method
  except InputError:  # none has finished here
    return
  require(
    method == config.method,
    f"{workdir} holds a run of {method}, and this one is of {config.method}: name another "
    "directory with --workdir.",
  )


def _run(config, workdir, devices, beside) -> dict[str, float]:
  """Stages and scores of a configuration that is valid, in a work directory that is ours."""
  places = (workdir, *map(pathlib.Path, beside))
  weights = config.teacher.weights if "teacher" in config else ""
  if weights and not any(is_finished(place, "teacher") for place in places):
    require_there(weights)  # before hours may go into reading the pictures
  context = _context(config, devices)
  config, chosen = automatic.resolve(config, automatic.collection_of(context.dataset))
  if chosen:
    say("[auto] " + ", ".join(f"{field}={value}" for field, value in chosen.items()))
  _require_same_config(config)
  plan = make_plan(config)
  plan.check(context.dataset)
  outputs = Runner(context, config, workdir, beside=beside).run(plan.stages)

  def describe():
    write_json(workdir / CONFIG, config.to_dict())
    write_json(workdir / AUTOMATIC, chosen)
    write_manifest(context.dataset, workdir / "splits.json")

  mesh_lib.on_main("describe the run", describe)
  return evaluate(context, config, plan, outputs, workdir)


def is_run(workdir: str | pathlib.Path) -> bool:
  """Whether a work directory holds a finished run of its own, and not only those of its seeds."""
  return (pathlib.Path(workdir) / CONFIG).exists()


def stored_config(workdir: str | pathlib.Path) -> ConfigDict:
  """The configuration that a finished run was made with.

  Raises:
    InputError: If ``workdir`` holds no finished run.
  """
  path = pathlib.Path(workdir) / CONFIG
  if not is_run(workdir):
    seeds = sorted(found.parent for found in pathlib.Path(workdir).glob(f"seed_*/{CONFIG}"))
    raise InputError(
      f"{workdir} holds runs of several seeds; name one of them, such as {seeds[0]}."
      if seeds
      else f"{workdir} holds no finished run (no {CONFIG}); run train.py first."
    )
  record = require_fields(path, read_json(path), {"method": TEXT, "data": OBJECT})
  require_fields(path, record["data"], {"name": TEXT})
  score = record.get("score")
  if isinstance(score, dict):
    score.setdefault("radius", 2)  # earlier versions had no other
  return ConfigDict(_with_tuples(record))


def _with_tuples(value):
  """Lists of JSON as the tuples that configurations have."""
  if isinstance(value, dict):
    return {key: _with_tuples(item) for key, item in value.items()}
  return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def score(workdir: str | pathlib.Path, config: ConfigDict | None = None) -> dict[str, float]:
  """Scores a finished work directory again, without training.

  Args:
    workdir: Where `train` has finished.
    config: `stored_config`, with fields replaced (`udh_jax.configuration.override`): where the data
      are now, or another definition of the score. None takes it as it is.

  Returns:
    mAP by method.

  Raises:
    InputError: If ``workdir`` holds no finished run, or another program is at work in it.
  """
  workdir = pathlib.Path(workdir)
  config, plan = _finished(workdir, config)
  with _alone_in(workdir):
    context, outputs = _restored(workdir, config, plan)
    return evaluate(context, config, plan, outputs, workdir)


def _finished(workdir: pathlib.Path, config: ConfigDict | None) -> tuple[ConfigDict, Plan]:
  """The configuration of a finished run, or the one that is given for it, and its plan."""
  config = with_absolute_paths(stored_config(workdir) if config is None else config)
  require_valid(config)
  return config, make_plan(config)


def _restored(
  workdir: pathlib.Path, config: ConfigDict, plan: Plan
) -> tuple[Context, Mapping[str, Any]]:
  """The images of a finished run and the outputs of its stages; none is run."""
  context = _context(config)
  return context, Runner(context, config, workdir).run(plan.stages, restore_only=True)


class RunCodes(NamedTuple):
  """What a finished run says of every item, to compute other scores with.

  Attributes:
    codes: By the title of a table's row, packed codes by side: "image", and "text" where items are
      pairs, as queries and in the database. uint8 arrays of shape ``[n, bytes]``.
    labels: None, int32 array of shape ``[n]``, or multi-hot bool array of shape ``[n, L]``.
    splits: Which of the n items are queries, database and training items.
    names: Of the items, n strings.
    class_names: Of the labels.
    bits: Length of the codes.
  """

  codes: dict[str, Codes]
  labels: np.ndarray | None
  splits: Splits
  names: Sequence[str]
  class_names: Sequence[str]
  bits: int


def load_codes(workdir: str | pathlib.Path, config: ConfigDict | None = None) -> RunCodes:
  """Codes of all rows of a finished run's table, with labels and splits; nothing is computed.

  Args:
    workdir: Where `train` has finished.
    config: `stored_config` with fields replaced, such as ``bits`` where a run has several lengths,
      or where the data are now. None takes it as it is.

  Returns:
    The codes; rows are items of the data set, so that the queries' codes of the row "PSCH" are
    ``found.codes["PSCH"].query["image"][found.splits.query]``.

  Raises:
    InputError: If ``workdir`` holds no finished run of that length.
  """
  workdir = pathlib.Path(workdir)
  config, plan = _finished(workdir, config)
  context, outputs = _restored(workdir, config, plan)
  dataset = context.dataset
  return RunCodes(
    gather(context, plan, outputs).codes,
    dataset.labels,
    dataset.splits,
    dataset.names,
    dataset.class_names,
    config.bits,
  )
