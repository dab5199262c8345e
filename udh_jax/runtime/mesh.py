"""One named axis over all devices of all processes, and rows of a data set laid out along it."""

import contextlib
import contextvars
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from udh_jax.errors import TrainingError, require

DATA_AXIS = "data"

Result = TypeVar("Result")

_alone = contextvars.ContextVar("alone", default="")  # what process 0 is doing without the others


def initialize(
  *,
  auto: bool = False,
  coordinator: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
) -> None:
  """Joins this process to the others of a run. Call it before anything touches a device.

  Args:
    auto: Let JAX find the others (TPU pods, Slurm, Open MPI).
    coordinator: ``host:port`` of process 0, where they cannot be found.
    num_processes: How many processes there are, with ``coordinator``.
    process_id: Which one this is, with ``coordinator``.

  Raises:
    InputError: If ``coordinator`` stands without the two numbers or the other way round.
  """
  given = [value is not None for value in (coordinator, num_processes, process_id)]
  require(
    all(given) or not any(given),
    "--coordinator, --num_processes and --process_id go together; "
    f"given: {coordinator}, {num_processes}, {process_id}.",
  )
  if coordinator is not None:
    jax.distributed.initialize(coordinator, num_processes, process_id)
  elif auto:
    jax.distributed.initialize()


@contextlib.contextmanager
def reachable() -> Iterator[None]:
  """Makes one line of it that other processes of the run cannot be reached: they have ended.

  Raises:
    TrainingError: If so.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    first = str(error).splitlines()[0]
    if not (jax.distributed.is_initialized() and any(word in first for word in _UNREACHABLE)):
      raise
    raise TrainingError(
      "Another process of this run has ended or cannot be reached; see what it printed, and start "
      f"all of them again ({first[:200]})."
    ) from error


# In what JAX says of it.
_UNREACHABLE = ("Gloo", "DEADLINE_EXCEEDED", "UNAVAILABLE", "oordination", "Connection")


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A mesh of one axis, ``data``, over these devices, or all devices of all processes."""
  count = jax.device_count() if devices is None else len(devices)
  return jax.make_mesh((count,), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def is_main() -> bool:
  """Whether this process writes logs, reports and records."""
  return jax.process_index() == 0


def on_main(name: str, work: Callable[[], Result]) -> Result | None:
  """Lets process 0 alone do something, such as writing files; the others wait until it is done.

  Args:
    name: What is done; the same in all processes.
    work: Calls nothing that all processes have to call together. Where it does, it is refused, in a
      run of one process too: in a run of several it would wait for ever.

  Returns:
    What ``work`` returns; None in all other processes.

  Raises:
    RuntimeError: If ``work`` calls such a thing; it names both.
    InputError: In the other processes, if ``work`` raises something in process 0.
  """
  result, error = None, None
  if is_main():
    token = _alone.set(name)
    try:
      result = work()
    except Exception as raised:
      error = raised
    finally:
      _alone.reset(token)
  barrier(name)
  failed = agreed(int(error is not None))
  if error is not None:
    raise error
  require(not failed, f"{name} failed in process 0, which says why.")
  return result


def require_together(what: str) -> None:
  """Refuses what all processes have to do together where process 0 is at work `on_main`.

  Args:
    what: Is about to be done.

  Raises:
    RuntimeError: If so.
  """
  if name := _alone.get():
    raise RuntimeError(
      f"{what} within {name!r}: all processes have to do it together, but only process 0 is there; "
      "do it before."
    )


def barrier(name: str) -> None:
  """Waits until all processes have come here."""
  require_together(f"waiting for {name!r}")
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


def agreed(value: int) -> int:
  """The value that process 0 holds, in every process."""
  require_together("agreeing on a number")
  if jax.process_count() == 1:
    return value
  return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def from_main(tree: Any) -> Any:
  """What process 0 holds, in every process: for what each has computed by itself.

  Hosts add in orders of their own, so that equal inputs give them unlike last digits.

  Args:
    tree: Arrays of the same shapes and dtypes in all processes.
  """
  require_together("agreeing on arrays")
  return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def text_from_main(text: str) -> str:
  """The text that process 0 holds, in every process; names of files that are not UTF-8 too."""
  require_together("agreeing on a text")
  if jax.process_count() == 1:
    return text
  encoded = np.frombuffer(text.encode("utf-8", "surrogateescape"), np.uint8)
  padded = np.zeros(agreed(len(encoded)), np.uint8)
  shared = min(len(encoded), len(padded))
  padded[:shared] = encoded[:shared]
  return np.asarray(from_main(padded)).tobytes().decode("utf-8", "surrogateescape")


def require_same(what: str, text: str) -> None:
  """Refuses a run whose processes do not hold the same; all of them call it.

  Args:
    what: What is compared, in words.
    text: It, or what tells it apart from others.

  Raises:
    InputError: In all processes, if one holds another text than process 0.
  """
  require_together(f"comparing {what}")
  if jax.process_count() == 1:
    return
  digest = np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], np.int32)
  found = np.asarray(multihost_utils.process_allgather(digest))
  other = np.flatnonzero((found != found[0]).any(axis=1))
  require(
    not len(other),
    lambda: (
      f"{what} of process {other[0]} differs from that of process 0; start all processes with the "
      "same command, on the same data."
    ),
  )


def row_sharding(mesh: Mesh) -> NamedSharding:
  """Leading axis split over the devices."""
  return NamedSharding(mesh, PartitionSpec(DATA_AXIS))


def replicated(mesh: Mesh) -> NamedSharding:
  """A whole copy on each device."""
  return NamedSharding(mesh, PartitionSpec())


def on_rows(
  mesh: Mesh, function: Callable[..., Any], *, rows: int, whole: int, to_rows: bool = False
) -> Callable[..., Any]:
  """Compiles a function of each device's own rows, mapped over `DATA_AXIS`.

  A caller that keeps what it gets compiles once for all calls of the same shapes.

  Args:
    mesh: The devices.
    function: Of ``rows`` arguments that are split over the devices, then ``whole`` that are not.
    rows: How many there are of the first.
    whole: Of the second.
    to_rows: Its outputs are split as its rows are; else they are the same on every device.

  Returns:
    The function of arrays on all devices.
  """
  split, same = PartitionSpec(DATA_AXIS), PartitionSpec()
  in_specs, out_specs = (split,) * rows + (same,) * whole, split if to_rows else same
  return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs))


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Puts a whole copy of each array of ``tree`` on each device.

  The copies are the devices' own: a step may donate them without touching what came in.
  """

  def put(leaf):
    value = np.asarray(leaf)
    return jax.make_array_from_callback(value.shape, replicated(mesh), lambda index: value[index])

  return jax.tree.map(put, tree)


class RowLayout(NamedTuple):
  """Where the rows of a data set lie: in order, in equal blocks, one block a device.

  Attributes:
    num_rows: Rows that exist.
    num_devices: Devices of the mesh.
  """

  num_rows: int
  num_devices: int

  @property
  def rows_per_device(self) -> int:
    """Rows of one block, padding included."""
    return max(1, -(-self.num_rows // self.num_devices))

  @property
  def padded_rows(self) -> int:
    """Rows of all blocks, padding included."""
    return self.rows_per_device * self.num_devices

  def batch(self, step: int, batch_size: int) -> np.ndarray:
    """Rows of the ``step``-th pass over the blocks: ``batch_size`` of each device, side by side.

    Args:
      step: Position of the pass.
      batch_size: Rows a device takes at a time, at most ``rows_per_device``.

    Returns:
      Row numbers, int64 ``[num_devices * batch_size]``; -1 for padding. The last pass begins
      early, so that it ends with its block.
    """
    offsets = self.offset(step, batch_size) + np.arange(batch_size)  # [b]
    starts = np.arange(self.num_devices)[:, None] * self.rows_per_device
    rows = starts + offsets  # [devices, b]
    return np.where(rows < self.num_rows, rows, -1).ravel()

  def offset(self, step: int, batch_size: int) -> int:
    """Where in each block the ``step``-th pass begins."""
    return min(step * batch_size, self.rows_per_device - batch_size)

  def num_batches(self, batch_size: int) -> int:
    """Passes until each block is through."""
    return -(-self.rows_per_device // batch_size)


def local_rows(mesh: Mesh, rows: np.ndarray) -> np.ndarray:
  """The part of a global batch of row numbers that this process reads, in device order."""
  per_device = len(rows) // mesh.size
  return np.concatenate(
    [
      rows[i * per_device : (i + 1) * per_device]
      for i, device in enumerate(mesh.devices.flat)
      if device.process_index == jax.process_index()
    ]
  )


def shard_local(mesh: Mesh, local: np.ndarray) -> jax.Array:
  """Joins each process's rows, as `local_rows` gave them out, to one array over all devices."""
  devices = [d for d in mesh.devices.flat if d.process_index == jax.process_index()]
  pieces = np.split(local, len(devices))
  shape = (len(pieces[0]) * mesh.size, *local.shape[1:])
  return jax.make_array_from_single_device_arrays(
    shape, row_sharding(mesh), [jax.device_put(p, d) for p, d in zip(pieces, devices, strict=True)]
  )


def to_host(array: jax.Array, rows: int | Sequence[int] | None = None) -> np.ndarray:
  """The whole array in every process's memory; of a padded one, the first ``rows`` rows.

  All processes call it together.
  """
  require_together("gathering an array")
  if not array.is_fully_addressable and not array.is_fully_replicated:
    array = multihost_utils.process_allgather(array, tiled=True)
  value = np.asarray(array)
  return value if rows is None else value[:rows]
