"""What a run shows while it works, and the TensorBoard events it leaves; process 0 alone speaks."""

import pathlib
import time
from typing import Any

from udh_jax.extras import require_extra
from udh_jax.runtime import mesh as mesh_lib

INTERVAL = 5.0  # seconds between two lines of progress


def format_seconds(seconds: float) -> str:
  """Seconds as people read them: ``3:07`` or ``1:02:03``."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(text: str) -> None:
  """Prints a line, in process 0."""
  if mesh_lib.is_main():
    print(text, flush=True)


class Events:
  """TensorBoard events of one run, written by clu; TensorFlow is imported with the first event."""

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._writer: Any = None

  def write(self, step: int, scalars: dict[str, float]) -> None:
    """Adds scalars, in process 0."""
    if not mesh_lib.is_main():
      return
    if self._writer is None:
      metric_writers = require_extra("clu.metric_writers", extra="train")
      self._writer = metric_writers.SummaryWriter(str(self._folder))
    self._writer.write_scalars(step, scalars)

  def flush(self) -> None:
    """Brings what was added to the disk."""
    if self._writer is not None:
      self._writer.flush()


class StageLog:
  """Lines of one stage: where it is, how fast it goes, how long it still takes.

  Args:
    name: The stage.
    number: Which one it is, from 1.
    count: How many there are.
    events: Where metrics go besides.
  """

  def __init__(self, name: str, number: int, count: int, events: Events):
    self._name = name
    self._label = f"[{number}/{count}] {name}"
    self._events = events
    self._started = self._shown = time.perf_counter()
    self._latest: dict[str, float] = {}
    self._steady: tuple[float, int] | None = (
      None  # when the first steps, with compilation, were over
    )

  def restored(self) -> None:
    """The stage was finished before."""
    say(f"{self._label}: finished before, restored")

  def begin(self, first: int, num_steps: int, images_per_step: int) -> None:
    """The stage runs from step ``first``."""
    self._first, self._num_steps, self._images = first, num_steps, images_per_step
    self._started = self._shown = time.perf_counter()
    origin = f" from step {first}" if first else ""
    length = f" {num_steps} steps" if num_steps else ""
    say(f"{self._label}:{length}{origin}")

  def due(self) -> bool:
    """Whether it is time for a line."""
    return time.perf_counter() - self._shown >= INTERVAL

  def metrics(self, step: int, values: dict[str, float]) -> None:
    """Takes the metrics of one step."""
    self._latest = values
    self._events.write(step, {f"{self._name}/{name}": value for name, value in values.items()})

  def progress(self, step: int) -> None:
    """Shows step, rate and time left."""
    self._shown = time.perf_counter()
    since, first = self._steady or (self._started, self._first)
    if self._steady is None:
      self._steady = self._shown, step
    rate = (step - first) / max(self._shown - since, 1e-9)
    speed = f"{rate * self._images:,.0f} images/s" if self._images else f"{rate:.1f} steps/s"
    left = format_seconds((self._num_steps - step) / max(rate, 1e-9))
    values = "".join(f"  {name} {value:.4f}" for name, value in self._latest.items())
    say(f"{self._label}: step {step}/{self._num_steps}  {speed}  {left} left{values}")

  def finished(self) -> None:
    """The stage's outputs are on disk."""
    self._events.flush()
    say(f"{self._label}: done in {format_seconds(time.perf_counter() - self._started)}")
