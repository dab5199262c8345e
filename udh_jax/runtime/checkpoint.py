"""Orbax checkpoints that know whether they are whole.

A checkpoint is an Orbax folder and, beside it, a record of its files' checksums. The record is
written last, so a folder without one was interrupted and does not count; a folder that disagrees
with its record is damaged, is named, and the one before it is used.
"""

import contextlib
import errno
import functools
import logging
import os
import pathlib
import shutil
import zlib
from collections.abc import Iterator
from typing import Any

import jax
from flax import serialization
from jax.sharding import Mesh

from udh_jax.errors import InputError
from udh_jax.files import read_json, write_json
from udh_jax.records import OBJECT, TEXTS, require_fields, whole
from udh_jax.runtime import mesh as mesh_lib

logger = logging.getLogger(__name__)

KEPT = 2  # unfinished stages keep this many saves: the newest, and one to fall back on


def _checksums(folder: pathlib.Path) -> dict[str, int]:
  """CRC-32 of each file below ``folder``, by relative path."""
  sums = {}
  for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    value = 0
    with path.open("rb") as file:
      while block := file.read(1 << 22):
        value = zlib.crc32(block, value)
    sums[path.relative_to(folder).as_posix()] = value
  return sums


def _record_path(folder: pathlib.Path) -> pathlib.Path:
  return folder.with_name(folder.name + ".json")


_RECORD = {"row_keys": TEXTS, "num_devices": whole(1, 1 << 31), "checksums": OBJECT}


def _read_record(folder: pathlib.Path) -> dict[str, Any]:
  path = _record_path(folder)
  return require_fields(path, read_json(path), _RECORD)


def remove(folder: pathlib.Path) -> None:
  """Removes a checkpoint, its record first, so that no half of it ever counts."""
  mesh_lib.on_main(f"remove {folder}", functools.partial(_remove, folder))


def _remove(folder: pathlib.Path) -> None:
  _record_path(folder).unlink(missing_ok=True)
  shutil.rmtree(folder, ignore_errors=True)


def remove_all(folder: pathlib.Path) -> None:
  """Removes a folder of checkpoints, all their records first; process 0 calls it."""
  for record in folder.glob("*.json"):
    record.unlink(missing_ok=True)
  shutil.rmtree(folder, ignore_errors=True)


def remove_rows(folder: pathlib.Path) -> None:
  """Removes the saves of a finished stage that are of rows; process 0 calls it.

  They are as large as the output, and the same again. Others stay, for where the output is damaged.

  Args:
    folder: Of the saves, there or not.
  """
  for path in folder.glob("*.json"):
    with contextlib.suppress(InputError):  # damaged: of no use
      if not _read_record(path.with_suffix(""))["row_keys"]:
        return
  remove_all(folder)


def link(source: pathlib.Path, folder: pathlib.Path) -> None:
  """Makes a checkpoint of the files of another, which are never written again; process 0 calls it.

  Args:
    source: A finished checkpoint.
    folder: Where to. What is there is replaced.
  """

  def link_or_copy(old, new):
    try:
      os.link(old, new)
    except OSError:  # another disk, or one without links
      shutil.copy2(old, new)

  _remove(folder)
  shutil.copytree(source, folder, copy_function=link_or_copy)
  write_json(_record_path(folder), read_json(_record_path(source)))


def save(folder: pathlib.Path, tree: Any, *, row_keys: tuple[str, ...], mesh: Mesh) -> None:
  """Writes ``tree``; all processes call it together.

  Args:
    folder: Where to. What is there is replaced.
    tree: A pytree with a dict at its top, of arrays over all devices.
    row_keys: Top-level keys whose arrays have one row an image, split over the devices.
    mesh: The devices.
  """
  import orbax.checkpoint as ocp

  remove(folder)
  with _space_needed(folder), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    checkpointer.save(
      folder.absolute(), args=ocp.args.PyTreeSave(serialization.to_state_dict(tree))
    )

  def write_record():
    record = {
      "row_keys": list(row_keys),
      "num_devices": mesh.size,
      "checksums": _checksums(folder),
    }
    write_json(_record_path(folder), record)

  with _space_needed(folder):
    mesh_lib.on_main(f"record {folder}", write_record)


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _space_needed(folder: pathlib.Path) -> Iterator[None]:
  """Makes one line of a full disk, of which Orbax tells in many errors, and in its log."""

  def reasons_in(text):
    return [os.strerror(code) for code in _NO_SPACE if os.strerror(code) in text]

  def is_news(record):
    return not reasons_in(record.getMessage())

  log = logging.getLogger("absl")  # by which Orbax tells what its threads raise
  log.addFilter(is_news)
  try:
    yield
  except Exception as error:
    reasons = reasons_in(str(error))
    if not reasons:
      raise
    for path in folder.parent.glob(f"{folder.name}*"):  # Orbax's temporary ones too
      shutil.rmtree(path, ignore_errors=True)
    raise InputError(
      f"The checkpoint {folder} cannot be written ({reasons[0]}); make room and start again: the "
      "saves before it are whole."
    ) from error
  finally:
    log.removeFilter(is_news)


def fault(folder: pathlib.Path) -> str | None:
  """What is wrong with a checkpoint, or None: judged by process 0 for all."""
  reasons = [None, "was not finished", "is damaged"]

  def judge():
    try:
      record = _read_record(folder)
    except InputError:
      return 1
    return 0 if _checksums(folder) == record["checksums"] else 2

  return reasons[mesh_lib.agreed(mesh_lib.on_main(f"judge {folder}", judge) or 0)]


def load(folder: pathlib.Path, *, num_rows: int, mesh: Mesh, like: Any = None) -> Any:
  """Reads a checkpoint onto the devices there are now, which may be more or fewer than then.

  All processes call it together.

  Args:
    folder: A checkpoint without `fault`.
    num_rows: Images of the data set: arrays of rows are padded anew for the devices of ``mesh``.
    mesh: The devices.
    like: A tree of the structure to return; None returns nested dicts.

  Returns:
    The tree that was saved.
  """
  import orbax.checkpoint as ocp

  mesh_lib.require_together(f"restoring {folder}")
  row_keys = _read_record(folder)["row_keys"]
  padded = mesh_lib.RowLayout(num_rows, mesh.size).padded_rows
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    stored = checkpointer.metadata(folder.absolute()).item_metadata.tree

    def restore_args(path, leaf):
      shape = tuple(leaf.shape)
      if path[0].key in row_keys:
        sharding, shape = mesh_lib.row_sharding(mesh), (padded, *shape[1:])
      else:
        sharding = mesh_lib.replicated(mesh)
      return ocp.ArrayRestoreArgs(sharding=sharding, global_shape=shape, strict=False)

    is_leaf = lambda leaf: hasattr(leaf, "shape")  # noqa: E731
    arguments = jax.tree_util.tree_map_with_path(restore_args, stored, is_leaf=is_leaf)
    items = jax.tree.map(lambda _: 0, arguments)
    tree = checkpointer.restore(
      folder.absolute(), args=ocp.args.PyTreeRestore(item=items, restore_args=arguments)
    )
  return tree if like is None else serialization.from_state_dict(like, tree)


class Progress:
  """The saves of a stage that is under way: ``folder/<step>``, the newest few kept.

  Those of work ``by_block`` (see `udh_jax.runtime.stage.Work`) serve the same number of devices.
  """

  def __init__(self, folder: pathlib.Path, *, num_rows: int, mesh: Mesh, by_block: bool = False):
    self._folder = folder
    self._by_block = by_block
    self._num_rows = num_rows
    self._mesh = mesh

  def _steps(self) -> list[int]:
    """Steps that have a record, newest first, as process 0 finds them; all call it together.

    What each found by itself would differ where process 0 is already removing one.
    """
    found = sorted(int(p.stem) for p in self._folder.glob("*.json") if p.stem.isdigit())[::-1]
    count = mesh_lib.agreed(len(found))
    found += [0] * (count - len(found))
    return [mesh_lib.agreed(step) for step in found[:count]]

  def save(self, step: int, state: Any, *, row_keys: tuple[str, ...]) -> None:
    """Writes ``state`` as it is after ``step`` steps."""
    make = functools.partial(self._folder.mkdir, parents=True, exist_ok=True)
    mesh_lib.on_main(f"make {self._folder}", make)
    save(self._folder / str(step), state, row_keys=row_keys, mesh=self._mesh)
    for old in self._steps()[KEPT:]:
      remove(self._folder / str(old))

  def _usable(self) -> Iterator[int]:
    for step in self._steps():
      folder = self._folder / str(step)
      if reason := fault(folder):
        logger.warning("Checkpoint %s %s; the one before it is used.", folder, reason)
        remove(folder)
        continue
      record = _read_record(folder)
      if self._by_block and record["num_devices"] != self._mesh.size:
        logger.warning(
          "Checkpoint %s is half-way over %d devices; on %d this stage starts again.",
          folder,
          record["num_devices"],
          self._mesh.size,
        )
        remove(folder)  # or it would count among the newest, which are kept
        continue
      yield step

  def restore(self, like: Any) -> tuple[int, Any]:
    """The newest sound save as ``(step, state)``; ``(0, like)`` where there is none.

    Args:
      like: The state at step 0.
    """
    for step in self._usable():
      folder = self._folder / str(step)
      return step, load(folder, num_rows=self._num_rows, mesh=self._mesh, like=like)
    return 0, like
