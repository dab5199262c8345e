"""Calls that arrive together are made as one, in shapes that were compiled before."""

import asyncio
import collections
import concurrent.futures
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from udh_jax.service.problems import Busy

_STEP = 4  # from one size of a batch to the next


def batch_sizes(largest: int) -> tuple[int, ...]:
  """Sizes that batches have: 1, 4, 16 and so on up to ``largest``, which is one too."""
  sizes = [1]
  while sizes[-1] < largest:
    sizes.append(min(_STEP * sizes[-1], largest))
  return tuple(sizes)


def spans(count: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
  """Cuts rows into batches of few sizes, of which at most a quarter is padding.

  Args:
    count: Number of rows.
    sizes: Ascending, from 1.

  Yields:
    First row, last row + 1, and size of the batch that they are padded to.
  """
  start = 0
  while start < count:
    left = count - start
    size = max(size for size in sizes if 3 * size <= 4 * left)
    yield start, min(start + size, count), size
    start += size


def by_batches(
  run: Callable[[np.ndarray], Any], rows: np.ndarray, sizes: Sequence[int]
) -> list[Any]:
  """Calls ``run`` on batches of few sizes.

  Args:
    run: Gets rows, returns an array or a tuple of arrays with a row for each.
    rows: Array of shape ``[n, ...]``, n >= 1.
    sizes: Ascending, from 1.

  Returns:
    For each row what ``run`` returned for it.
  """
  found = []
  for start, stop, size in spans(len(rows), sizes):
    padding = [(0, size - (stop - start))] + [(0, 0)] * (rows.ndim - 1)
    result = run(np.pad(rows[start:stop], padding))
    several = result if isinstance(result, tuple) else (result,)
    for row in range(stop - start):
      found.append(tuple(array[row] for array in several) if result is several else result[row])
  return found


class Batcher:
  """Gathers what arrives while a call is made, and makes the next call of all of it.

  Calls are made one at a time in a thread of their own, so that what they call need not be safe
  for several threads.
  """

  def __init__(
    self,
    run: Callable[[list[Any]], Sequence[Any]],
    *,
    max_batch: int,
    max_wait: float = 0.0,
    max_waiting: int = 256,
    observe: Callable[[int], None] = lambda size: None,
  ):
    """Prepares; `start` begins.

    Args:
      run: Gets 1 to ``max_batch`` items and returns a result for each.
      max_batch: Most items of a call.
      max_wait: Seconds to wait for more, from the arrival of the first.
      max_waiting: Items and calls that may wait; more are refused.
      observe: Called with the size of each batch.
    """
    self._run, self._observe = run, observe
    self._max_batch, self._max_wait, self._max_waiting = max_batch, max_wait, max_waiting
    self._waiting: collections.deque[tuple[float, Any, asyncio.Future]] = collections.deque()
    self._calls = 0
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._task: asyncio.Task[None] | None = None

  @property
  def waiting(self) -> int:
    """How many items wait, and calls of other functions, the one that is made counted."""
    return len(self._waiting) + self._calls

  def start(self) -> None:
    """Begins to make calls; within a running event loop."""
    self._arrived = asyncio.Event()
    self._task = asyncio.get_running_loop().create_task(self._serve())

  async def stop(self) -> None:
    """Ends; what still waits fails as `Busy`."""
    if self._task is not None:
      self._task.cancel()
      await asyncio.gather(self._task, return_exceptions=True)
    _fail(self._waiting, Busy("The server is stopping."))
    self._waiting.clear()
    self._thread.shutdown()

  async def __call__(self, item: Any) -> Any:
    """The result for one item.

    Raises:
      Busy: If too many wait.
    """
    self._require_room()
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    self._waiting.append((loop.time(), item, future))
    self._arrived.set()
    return await future

  async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function in the same thread, between batches.

    Raises:
      Busy: If too many wait.
    """
    self._require_room()
    self._calls += 1
    try:
      return await self._in_thread(function, *arguments)
    finally:
      self._calls -= 1

  def _require_room(self) -> None:
    if self.waiting >= self._max_waiting:
      raise Busy(f"{self.waiting} queries wait already; ask again in a moment.")

  async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

  async def _serve(self) -> None:
    while True:
      batch = await self._gather()
      if not batch:
        continue
      self._observe(len(batch))
      try:
        items = [item for _, item, _ in batch]
        results = await self._in_thread(self._run, items)
        for (_, _, future), result in zip(batch, results, strict=True):
          if not future.done():
            future.set_result(result)
      except asyncio.CancelledError:
        _fail(batch, Busy("The server is stopping."))
        raise
      except Exception as error:
        _fail(batch, error)

  async def _gather(self) -> list[tuple[float, Any, asyncio.Future]]:
    """The next items that someone still waits for."""
    while not self._waiting:
      self._arrived.clear()
      await self._arrived.wait()
    until = self._waiting[0][0] + self._max_wait
    while len(self._waiting) < self._max_batch:
      left = until - asyncio.get_running_loop().time()
      if left <= 0:
        break
      self._arrived.clear()
      try:
        async with asyncio.timeout(left):
          await self._arrived.wait()
      except TimeoutError:
        break
    count = min(len(self._waiting), self._max_batch)
    batch = [self._waiting.popleft() for _ in range(count)]
    return [entry for entry in batch if not entry[2].done()]


def _fail(entries, error) -> None:
  for _, _, future in entries:
    if not future.done():
      future.set_exception(error)
