"""Runs a method's stages in order, each from its last save, and never on another's results."""

import functools
import hashlib
import json
import logging
import pathlib
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from udh_jax.configuration import flatten
from udh_jax.errors import InputError, TrainingError, require
from udh_jax.files import read_json, write_json
from udh_jax.records import OBJECT, TEXT, TEXTS, require_fields
from udh_jax.runtime import checkpoint
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.log import Events, StageLog
from udh_jax.runtime.stage import Context, Stage, Work

logger = logging.getLogger(__name__)


def prepare_workdir(workdir: pathlib.Path) -> None:
  """Makes the work directory and proves that it can be written to.

  Raises:
    InputError: If it cannot.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=workdir):
      pass
  except OSError as error:
    is_file = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "it is a file, or below one" if is_file else error.strerror
    raise InputError(
      f"The work directory {workdir} cannot be written to ({reason}); name another with --workdir."
    ) from None


SETTLED = 20  # steps after which several processes look at their metrics
_MADE = {"fields": OBJECT, "data": TEXT, "inputs": OBJECT}  # of stage.json
_BY_ITSELF = ("free", "images", "contents", "labels_used", "files")  # see `Runner._identity`


def _folder_of(workdir: pathlib.Path, name: str) -> pathlib.Path:
  return workdir / "stages" / name


def is_finished(workdir: pathlib.Path, name: str) -> bool:
  """Whether a work directory holds the output of a stage, by its name."""
  return (_folder_of(workdir, name) / "output.json").exists()


class Runner:
  """Runs and restores stages in one work directory.

  Args:
    context: The devices and the images.
    config: The whole configuration; ``checkpoint_every`` (steps) is read here.
    workdir: Where the stages' folders are.
    beside: Other work directories. A stage that one of them has finished and that would be the same
      here is taken from it.
  """

  def __init__(
    self,
    context: Context,
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    beside: Sequence[str | pathlib.Path] = (),
  ):
    self._beside = tuple(map(pathlib.Path, beside))
    self._context = context
    self._config = config
    self._workdir = pathlib.Path(workdir)
    self._num_rows = len(context.dataset.images)
    self._identities: dict[str, str] = {}
    self._files: dict[str, dict[str, str]] = {}
    self._events = Events(self._workdir / "events")

  def _folder(self, stage: Stage) -> pathlib.Path:
    return _folder_of(self._workdir, stage.name)

  def _record(self, stage: Stage) -> dict[str, Any]:
    """All that decides a stage's outputs, as JSON gives it back, to compare with a folder's.

    It is that of process 0 in all: each may have files in places of its own.
    """
    dataset = self._context.dataset
    data = f"{dataset.protocol}, images {dataset.image_shape}"
    if dataset.texts is not None:
      data += f", texts {dataset.texts.shape} {dataset.texts_digest[:12]}"
    if stage.reads_labels:
      data += f", training labels {dataset.training_labels_digest[:12]}"
    config = stage.read(self._config)
    fields = flatten(config)
    if stage.name not in self._files:  # contents are read for them
      self._files[stage.name] = {} if stage.files is None else stage.files(config)
    files = self._files[stage.name]
    record = {
      "version": stage.version,
      "images": dataset.images_digest[:12],
      "labels_used": dataset.labels_used,
      "files": {field: digest[:12] for field, digest in files.items()},
      "fields": {name: value for name, value in fields.items() if name not in stage.free},
      "free": {name: value for name, value in fields.items() if name in stage.free},
      "data": data,
      "inputs": {role: [name, self._identities[name]] for role, name in stage.inputs.items()},
    }
    if dataset.contents_digest:
      record["contents"] = dataset.contents_digest[:12]
    return json.loads(mesh_lib.text_from_main(json.dumps(record)))

  def _identity(self, record: dict[str, Any]) -> str:
    """Equal for records of equal outputs from the same images, which every record has by itself."""
    deciding = {key: value for key, value in record.items() if key not in _BY_ITSELF}
    if files := {field: digest for field, digest in record["files"].items() if digest}:
      deciding["files"] = files
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]

  def _check(self, stage: Stage, record: dict[str, Any]) -> dict[str, Any]:
    """Refuses a folder that another configuration made.

    Returns:
      The record to go on with: a file that is missing now, was not noted by an earlier version, or
      has moved with the same content counts as unchanged.

    Raises:
      InputError: If a field, the data or an input differs; names the first and what to do.
    """
    folder = self._folder(stage)
    path = folder / "stage.json"
    begun = _was_begun(folder)
    if not path.exists():
      require(
        not begun,
        f"{folder} holds results of stage {stage.name} and no {path.name}, which says how they "
        "were made; copy it too, or delete the folder (and those of the stages after it).",
      )
      return record
    if not begun:  # nothing came of it, whatever it was to be made from
      return record
    made = require_fields(path, read_json(path), _MADE)
    require_fields(path, made["inputs"], dict.fromkeys(made["inputs"], TEXTS))
    remedy = (
      f"Give another --workdir, go back to the old value, or delete {folder} (and the stages "
      "after it) to make it anew."
    )
    if made.get("version", 1) != record["version"]:
      raise InputError(
        f"Stage {stage.name} in {folder} was made by version {made.get('version', 1)} of its "
        f"formula, this is version {record['version']}, which gives other results. Give another "
        f"--workdir, or delete {folder} (and the stages after it) to make it anew."
      )
    old = {name: value for name, value in made["fields"].items() if name not in stage.free}
    noted = made.get("files", {})
    new = _where_made(record, made)["fields"]
    differing = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    if differing:
      changes = ", ".join(f"{k}={old.get(k)!r} (now {new.get(k)!r})" for k in differing)
      raise InputError(f"Stage {stage.name} in {folder} was made with {changes}. {remedy}")
    if made["data"] != record["data"]:
      raise InputError(
        f"Stage {stage.name} in {folder} was made from {made['data']}, this run has "
        f"{record['data']}. {remedy}"
      )
    if made.get("images", record["images"]) != record["images"]:  # earlier versions noted none
      raise InputError(
        f"Stage {stage.name} in {folder} was made from other images of the same names (digest "
        f"{made['images']}, now {record['images']}). {remedy}"
      )
    was, now = made.get("contents"), record.get("contents")
    if was and now and was != now:
      raise InputError(
        f"Stage {stage.name} in {folder} was made from images of the same names and sizes and "
        f"other contents (digest {was}, now {now}). {remedy}"
      )
    found = {}
    for field, digest in record["files"].items():
      was = noted.get(field, "")
      if was and digest and was != digest:
        raise InputError(
          f"Stage {stage.name} in {folder} was made when the file {field}="
          f"{record['fields'].get(field)!r}, or one that is read with it, held something else "
          f"(SHA-256 {was}, now {digest}). {remedy}"
        )
      found[field] = was
    was, now = made.get("labels_used", record["labels_used"]), record["labels_used"]
    if was != now:
      raise InputError(
        f"Stage {stage.name} in {folder} was made from features whose pre-training labels were "
        f"{was!r} (now {now!r}). {remedy}"
      )
    for role in sorted(made["inputs"].keys() | record["inputs"].keys()):
      was, now = made["inputs"].get(role), record["inputs"].get(role)
      if was != now:
        raise InputError(
          f"Stage {stage.name} in {folder} was made from the {role} of another "
          f"{was and was[0]} (now {now and now[0]}). {remedy}"
        )
    return {**record, "fields": new, "files": found}

  def run(self, stages: Sequence[Stage], *, restore_only: bool = False) -> dict[str, Any]:
    """Runs each stage that is not finished and returns what the last ones left.

    Args:
      stages: In order; each stage's inputs come before it.
      restore_only: Raise where a stage is not finished, instead of running it.

    Returns:
      Outputs by stage name, for the stages that no later stage consumes and those it restored;
      an output is read from its checkpoint when it is first needed.

    Raises:
      InputError: If a stage's folder belongs to another configuration, or, with ``restore_only``,
        if a stage is not finished.
      TrainingError: If a loss turns non-finite.
    """
    outputs = _Outputs(self)
    for stage in stages:  # all of them, before hours go into the first
      self._identities[stage.name] = self._identity(self._check(stage, self._record(stage)))
    for position, stage in enumerate(stages):
      record = self._check(stage, self._record(stage))
      folder = self._folder(stage)
      log = StageLog(stage.name, position + 1, len(stages), self._events)
      if self._beside:
        take = functools.partial(self._take_over, stage, record)
        mesh_lib.on_main(f"take over {stage.name}", take)
        record = self._check(stage, record)
      self._identities[stage.name] = self._identity(record)
      if mesh_lib.agreed(int(is_finished(self._workdir, stage.name))):
        reason = checkpoint.fault(folder / "output")
        if reason is None:
          if not restore_only:
            self._clear(stage)  # a run that was killed may not have come to it
          log.restored()
          outputs.on_disk(stage)
          continue
        require(
          not restore_only,
          f"Checkpoint {folder / 'output'} {reason}; run train.py with this --workdir to make it "
          "again.",
        )
        logger.warning("Checkpoint %s %s; the stage is made again.", folder / "output", reason)
        checkpoint.remove(folder / "output")
      if restore_only:
        raise InputError(
          f"Stage {stage.name} in {self._workdir} is not finished; run train.py with this "
          "--workdir first."
        )
      inputs = {role: outputs[name] for role, name in stage.inputs.items()}
      context = self._context
      if not stage.reads_labels:
        context = context._replace(dataset=context.dataset.without_labels())
      work = stage.build(context, stage.read(self._config), inputs)
      begin = functools.partial(self._begin, folder, record, work.by_block)
      mesh_lib.on_main(f"begin {stage.name}", begin)
      result = self._execute(stage, work, log)
      checkpoint.save(folder / "output", result, row_keys=work.row_outputs, mesh=self._context.mesh)
      self._clear(stage)
      log.finished()
      outputs.keep(stage, result, stages[position + 1 :])
    return outputs

  def _clear(self, stage: Stage) -> None:
    """Removes the saves that a finished stage needs no more; all processes call it together."""
    clear = functools.partial(checkpoint.remove_rows, self._folder(stage) / "progress")
    mesh_lib.on_main(f"clear {stage.name}", clear)

  def _take_over(self, stage: Stage, record: dict[str, Any]) -> None:
    """Takes the outputs of a stage from beside, where it is not finished; process 0 calls it."""
    folder = self._folder(stage)
    if is_finished(self._workdir, stage.name):
      return
    for workdir in self._beside:
      other = _folder_of(workdir, stage.name)
      if not is_finished(workdir, stage.name):
        continue
      made = read_json(other / "stage.json")
      own = _where_made(record, made)
      # As earlier versions noted it.
      earlier = {key: value for key, value in own.items() if key != "contents"}
      if made in (own, earlier):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "stage.json", made)
        checkpoint.remove_all(folder / "progress")
        checkpoint.link(other / "output", folder / "output")
        return

  def _begin(self, folder: pathlib.Path, record: dict[str, Any], by_block: bool) -> None:
    """Notes what a stage is made from; process 0 calls it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "stage.json"
    if path.exists() and _was_begun(folder):
      if require_fields(path, read_json(path), _MADE).get("free") == record["free"]:
        return
      if by_block:  # its position counts batches
        checkpoint.remove_all(folder / "progress")
    write_json(path, record)

  def _execute(self, stage: Stage, work: Work, log: StageLog) -> dict[str, Any]:
    """Takes a stage's work from its last save to its end."""
    progress = checkpoint.Progress(
      self._folder(stage) / "progress",
      num_rows=self._num_rows,
      mesh=self._context.mesh,
      by_block=work.by_block,
    )
    state, first = work.state, 0
    if work.num_steps:
      first, state = progress.restore(work.state)
    log.begin(first, work.num_steps, work.images_per_step)
    pending: list[tuple[int, dict[str, jax.Array]]] = []
    alone = jax.process_count() == 1

    def require_finite(bad, step):
      if bad:
        raise TrainingError(
          f"Stage {stage.name}: {', '.join(bad)} was not finite at step {step} of "
          f"{work.num_steps}. The last good checkpoint is kept in {self._folder(stage)}; lower "
          "the learning rate or look at the data, and start again in another --workdir."
        )

    def settle(step):
      """Reads the metrics that are due; no step beyond a non-finite loss is ever saved."""
      for at, metrics in pending:
        values = {name: float(np.asarray(value)) for name, value in metrics.items()}
        require_finite([name for name, value in values.items() if not np.isfinite(value)], at + 1)
        log.metrics(at + 1, values)
      pending.clear()
      if log.due() or step == work.num_steps or step % self._config.checkpoint_every == 0:
        log.progress(step)

    if first < work.num_steps:
      assert work.step is not None and work.batches is not None
      batches = work.batches(first)
      try:
        for step in range(first, work.num_steps):
          state, metrics = work.step(state, next(batches))
          if metrics:
            pending.append((step, metrics))
          else:
            jax.block_until_ready(state)  # bounds what is under way
          done = step + 1
          save = done % self._config.checkpoint_every == 0 and done < work.num_steps
          # Several processes settle at the same steps, so that a loss that is not finite ends all.
          due = log.due() if alone else done % SETTLED == 0
          if save or done == work.num_steps or due:
            settle(done)
          if save or done == work.num_steps:  # a gradient can be so where the loss is finite
            sound = "parameters" not in state or _all_finite(state["parameters"])
            require_finite([] if sound else ["a parameter"], done)
          if save:
            progress.save(done, state, row_keys=work.row_state)
      finally:
        if hasattr(batches, "close"):
          batches.close()
    return work.finish(state)


def _was_begun(folder: pathlib.Path) -> bool:
  """Whether a stage's folder holds its output, or a save of its work."""
  return (folder / "output.json").exists() or any((folder / "progress").glob("*.json"))


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
  floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return jnp.array([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _where_made(record: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
  """A record with the places that files of the same content had in another."""
  noted, fields = made.get("files", {}), made.get("fields", {})
  same = [field for field, digest in record["files"].items() if digest == noted.get(field) != ""]
  places = {field: fields[field] for field in same if field in fields}
  return {**record, "fields": {**record["fields"], **places}}


class _Outputs(dict):
  """Outputs by stage, read from their checkpoints when first asked for."""

  def __init__(self, runner: Runner):
    super().__init__()
    self._runner = runner
    self._stored: dict[str, Stage] = {}

  def on_disk(self, stage: Stage) -> None:
    self._stored[stage.name] = stage

  def keep(self, stage: Stage, result: dict[str, Any], later: Sequence[Stage]) -> None:
    """Holds ``result`` and lets go of what no stage in ``later`` asks for."""
    self[stage.name] = result
    self.on_disk(stage)
    wanted = {name for following in later for name in following.inputs.values()}
    for name in [n for n in self if n not in wanted and n != stage.name]:
      del self[name]

  def __missing__(self, name: str) -> dict[str, Any]:
    runner = self._runner
    self[name] = checkpoint.load(
      runner._folder(self._stored[name]) / "output",
      num_rows=runner._num_rows,
      mesh=runner._context.mesh,
    )
    return self[name]
