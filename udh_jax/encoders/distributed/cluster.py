"""Encoding on all machines of a Ray cluster."""

import collections
import pathlib
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from udh_jax.encoders.distributed.file_systems import EXTRA
from udh_jax.encoders.distributed.listing import Plan, make_plan
from udh_jax.encoders.distributed.parts import (
  count_codes,
  count_pictures,
  count_unreadable,
  encode_part,
  parts_done,
  parts_to_do,
)
from udh_jax.encoders.folder import SHOW_EVERY, require_pictures
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.loading import absolute, load_encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.errors import InputError, require
from udh_jax.extras import require_extra


class Encoded(NamedTuple):
  """What a call has done.

  Attributes:
    pictures: Rows of the whole listing.
    encoded: Pictures that this call encoded.
    unreadable: Pictures of the whole listing that cannot be read.
    seconds: From the first part's beginning to the last one's end.
    workers: Pictures that each worker encoded in this call.
  """

  pictures: int
  encoded: int
  unreadable: int
  seconds: float
  workers: dict[str, int]


class _Worker:
  """An actor: loads the encoder once and encodes parts."""

  def __init__(
    self, files: Mapping[str, bytes], plan: Plan, output: str, batch_size: int, threads: int
  ):
    ray = require_extra("ray", extra=EXTRA)
    with tempfile.TemporaryDirectory() as folder:
      for name, data in ray.get(files).items():
        pathlib.Path(folder, name).write_bytes(data)
      self._encoder = load_encoder(folder)
    self._plan = ray.get(plan)
    self._options = {"batch_size": batch_size, "threads": threads}
    self._output = output
    self._name = ray.get_runtime_context().get_actor_id()

  def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, Any]:
    done = [
      encode_part(self._encoder, self._plan, self._output, int(number), **self._options)
      for number in batch["number"]
    ]
    columns = {name: [getattr(part, name) for part in done] for name in done[0]._fields}
    return columns | {"worker": [self._name] * len(done)}


def encode_distributed(
  encoder: Encoder | PairEncoder,
  images: str,
  output: str,
  *,
  source: str = "",
  root: str | None = None,
  part_size: int | None = None,
  batch_size: int = 64,
  workers: int | None = None,
  cpus_per_worker: int = 1,
  gpus_per_worker: float = 0,
) -> Encoded:
  """Encodes the pictures of a folder or listing on a Ray cluster; goes on where it was stopped.

  Each worker is an actor of Ray Data that loads the encoder once and takes one part after the
  other. Parts of a machine that is lost are given to others. Connect to a cluster by ``ray.init``
  before, or by the environment's RAY_ADDRESS; else one is started on this machine.

  Args:
    encoder: From `load_encoder`; it is sent to the workers.
    images: See `udh_jax.encoders.distributed.listing.make_plan`.
    output: Folder of the result, a path or URL that all machines reach. It has ``codes/`` (names
      and codes), ``unreadable/`` (names and reasons) and ``plan.json``.
    source: Where the encoder came from; noted.
    root: What relative paths of a listing are relative to; see `make_plan`.
    part_size: Pictures of a part; see `make_plan`.
    batch_size: Pictures encoded at once.
    workers: How many; None for as many as the cluster has room for, which may change meanwhile.
    cpus_per_worker: Cores of a worker, which reads and decodes in as many threads.
    gpus_per_worker: GPUs of a worker; 0 encodes on the CPU.

  Raises:
    InputError: As `make_plan`; or if Ray is not installed or fails, or the output is not where all
      machines reach it.
  """
  require_pictures(encoder)
  for name, value in (("batch_size", batch_size), ("cpus_per_worker", cpus_per_worker)):
    require(value >= 1, f"{name} is {value}, expected 1 or more.")
  require(workers is None or workers >= 1, f"workers is {workers}, expected 1 or more.")
  require(gpus_per_worker >= 0, f"gpus_per_worker is {gpus_per_worker}, expected 0 or more.")
  ray, data = require_extra("ray", extra=EXTRA), require_extra("ray.data", extra=EXTRA)
  images, output = _whole(images), _whole(output)
  root = None if root is None else _whole(root)
  plan = make_plan(encoder, images, output, source=absolute(source), root=root, part_size=part_size)
  todo = parts_to_do(output, plan)
  done_before = plan.num_pictures - _num_pictures(plan, todo)
  if done_before:
    print(f"{done_before:,} of {plan.num_pictures:,} pictures were done before", flush=True)
  by_worker: collections.Counter[str] = collections.Counter()
  seconds = 0.0
  if todo:
    if not ray.is_initialized():
      ray.init(log_to_driver=False, logging_level="warning", configure_logging=False)
    context = data.DataContext.get_current()
    shown_before = context.enable_progress_bars
    context.enable_progress_bars = False
    variables = {"NPROC": f"{cpus_per_worker}"}  # threads of XLA
    if not gpus_per_worker:
      variables["JAX_PLATFORMS"] = "cpu"
    pool = data.ActorPoolStrategy(size=workers, min_size=None if workers else 1)
    try:
      parts = data.from_items([{"number": n} for n in todo], override_num_blocks=len(todo))
      results = parts.map_batches(
        _Worker,
        fn_constructor_kwargs={
          "files": ray.put(_files_of(encoder)),
          "plan": ray.put(plan),
          "output": output,
          "batch_size": batch_size,
          "threads": cpus_per_worker,
        },
        batch_size=1,
        compute=pool,
        num_cpus=cpus_per_worker,
        num_gpus=gpus_per_worker or None,
        runtime_env={"env_vars": variables},
      )
      seconds = _watch(results, plan, todo, by_worker)
    except ray.exceptions.RayError as error:
      raise InputError(f"Encoding with Ray failed: {_last_line(error)}") from error
    finally:
      context.enable_progress_bars = shown_before
  absent = set(range(len(plan.parts))) - parts_done(output)
  require(
    not absent,
    f"{len(absent)} parts were encoded but are not in {output} as this machine sees it; give a "
    "folder that all machines share, or a URL.",
  )
  pictures, bad, items = count_pictures(output, plan), count_unreadable(output), count_codes(output)
  if bad:
    print(f"{bad:,} of {pictures:,} pictures cannot be read; see {output}/unreadable")
  if repeated := pictures - bad - items:
    print(f"{repeated:,} of {pictures:,} rows name a picture that was named before")
  encoded = sum(by_worker.values())
  rate = encoded / max(seconds, 1e-9)
  print(
    f"{output}: {items:,} pictures, {plan.num_bits} bits, {rate:.0f} pictures/s "
    f"on {len(by_worker)} workers",
    flush=True,
  )
  return Encoded(pictures, encoded, bad, seconds, dict(by_worker))


def _watch(results: Any, plan: Plan, todo: list[int], by_worker: collections.Counter) -> float:
  """Takes the results as they come, and tells how it goes; returns the seconds it took."""
  total, done = _num_pictures(plan, todo), 0
  started = shown = time.monotonic()
  first = None
  for row in results.iter_rows():
    now = time.monotonic()
    first = now - row["seconds"] if first is None else first  # without the start of the workers
    by_worker[row["worker"]] += row["encoded"]
    part = plan.parts[row["number"]]
    done += part.stop - part.start
    if now - shown >= SHOW_EVERY:
      rate = done / (now - first)
      left = (total - done) / rate
      print(f"{done:,}/{total:,} pictures  {rate:.0f}/s  {left:.0f} s left", flush=True)
      shown = now
  return time.monotonic() - (started if first is None else first)


def _num_pictures(plan: Plan, numbers: list[int]) -> int:
  return sum(plan.parts[number].stop - plan.parts[number].start for number in numbers)


def _files_of(encoder: Encoder | PairEncoder) -> dict[str, bytes]:
  """The files of an encoder's folder, to be sent."""
  with tempfile.TemporaryDirectory() as folder:
    encoder.save(folder)
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def _whole(place: str) -> str:
  """A path as other processes can use it; a URL as it is."""
  return place if "://" in place else str(pathlib.Path(place).absolute())


def _last_line(error: BaseException) -> str:
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  # Ray puts a worker's whole traceback into its own error, with advice behind it.
  ours = [line.partition("InputError: ")[2] for line in lines if "InputError: " in line]
  return ours[-1] if ours else lines[-1] if lines else type(error).__name__
