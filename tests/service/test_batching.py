"""Batches of few sizes, and what arrives together is done together."""

import asyncio
import threading

import numpy as np
import pytest

from udh_jax.service.batching import Batcher, batch_sizes, by_batches, spans
from udh_jax.service.problems import Busy


def test_sizes_go_up_to_the_largest():
  assert batch_sizes(1) == (1,)
  assert batch_sizes(16) == (1, 4, 16)
  assert batch_sizes(50) == (1, 4, 16, 50)


@pytest.mark.parametrize("largest", [1, 2, 16, 50])
def test_spans_cover_all_rows_once_and_pad_little(largest):
  sizes = batch_sizes(largest)
  for count in range(1, 130):
    found = list(spans(count, sizes))
    assert [row for start, stop, _ in found for row in range(start, stop)] == list(range(count))
    assert all(size in sizes and 3 * size <= 4 * (stop - start) for start, stop, size in found)


@pytest.mark.parametrize("count", [1, 3, 4, 7, 16, 23])
def test_batches_give_what_one_call_gives(count, rng):
  rows, seen = rng.integers(0, 99, (count, 2)), []

  def run(batch):
    seen.append(len(batch))
    return batch.sum(axis=1), batch * 2

  found = by_batches(run, rows, (1, 4, 16))
  np.testing.assert_array_equal([a for a, _ in found], rows.sum(axis=1))
  np.testing.assert_array_equal([b for _, b in found], rows * 2)
  assert set(seen) <= {1, 4, 16}
  np.testing.assert_array_equal(by_batches(lambda batch: batch + 1, rows, (1, 4)), rows + 1)


def run_with(batcher, work):
  async def run():
    batcher.start()
    try:
      return await work()
    finally:
      await batcher.stop()

  return asyncio.run(asyncio.wait_for(run(), 30))


def test_what_arrives_during_a_call_is_one_batch():
  gate, sizes = threading.Event(), []

  def double(items):
    sizes.append(len(items))
    gate.wait(20)
    return [2 * item for item in items]

  batcher = Batcher(double, max_batch=5)

  async def work():
    first = asyncio.create_task(batcher(0))
    while not sizes:
      await asyncio.sleep(0.001)
    others = [asyncio.create_task(batcher(i)) for i in range(1, 8)]
    while batcher.waiting < 7:
      await asyncio.sleep(0.001)
    gate.set()
    return await asyncio.gather(first, *others)

  assert run_with(batcher, work) == [0, 2, 4, 6, 8, 10, 12, 14]
  assert sizes == [1, 5, 2]


def test_waits_for_more_up_to_the_largest_batch():
  sizes = []

  def note(items):
    sizes.append(len(items))
    return items

  batcher = Batcher(note, max_batch=3, max_wait=20)

  async def work():
    first = asyncio.create_task(batcher(0))
    await asyncio.sleep(0.05)  # it is waiting for others by now
    return await asyncio.gather(first, batcher(1), batcher(2))

  assert run_with(batcher, work) == [0, 1, 2]
  assert sizes == [3]


@pytest.fixture
def blocking():
  """A function that waits until it is let go, and says when it has begun."""
  gate, begun = threading.Event(), threading.Event()

  def run(items):
    begun.set()
    gate.wait(20)
    return items

  run.gate, run.begun = gate, begun
  yield run
  gate.set()


async def until(condition):
  while not condition():
    await asyncio.sleep(0.001)


def test_too_many_are_refused(blocking):
  batcher = Batcher(blocking, max_batch=1, max_waiting=2)

  async def work():
    tasks = [asyncio.create_task(batcher("first"))]
    await until(blocking.begun.is_set)
    tasks += [asyncio.create_task(batcher(i)) for i in range(2)]
    await until(lambda: batcher.waiting == 2)
    with pytest.raises(Busy, match="2 queries wait"):
      await batcher("too many")
    blocking.gate.set()
    return await asyncio.gather(*tasks)

  assert run_with(batcher, work) == ["first", 0, 1]


def test_at_the_end_those_that_wait_are_told(blocking):
  batcher = Batcher(blocking, max_batch=1)

  async def run():
    batcher.start()
    tasks = [asyncio.create_task(batcher(i)) for i in range(3)]
    await until(blocking.begun.is_set)
    threading.Timer(0.05, blocking.gate.set).start()
    await batcher.stop()
    return await asyncio.gather(*tasks, return_exceptions=True)

  found = asyncio.run(asyncio.wait_for(run(), 30))
  assert all(isinstance(error, Busy) for error in found)


def test_a_failure_is_told_to_all_of_its_batch_and_the_next_succeeds():
  def run(items):
    if "bad" in items:
      raise ValueError("bad")
    return items

  batcher = Batcher(run, max_batch=2, max_wait=20)

  async def work():
    both = await asyncio.gather(batcher("bad"), batcher("good"), return_exceptions=True)
    return both, await asyncio.gather(batcher("c"), batcher("d"))

  (first, second), after = run_with(batcher, work)
  assert isinstance(first, ValueError) and isinstance(second, ValueError)
  assert after == ["c", "d"]


def test_what_nobody_waits_for_is_not_done(blocking):
  done = []

  def run(items):
    done.extend(items)
    return blocking(items)

  batcher = Batcher(run, max_batch=1)

  async def work():
    first = asyncio.create_task(batcher("first"))
    await until(blocking.begun.is_set)
    given_up, last = (asyncio.create_task(batcher(name)) for name in ("given up", "last"))
    await until(lambda: batcher.waiting == 2)
    given_up.cancel()
    blocking.gate.set()
    await asyncio.gather(first, last)

  run_with(batcher, work)
  assert done == ["first", "last"]


def test_calls_are_bounded_as_queries_are(blocking):
  batcher = Batcher(blocking, max_batch=1, max_waiting=2)

  async def work():
    tasks = [asyncio.create_task(batcher("first"))]
    await until(blocking.begun.is_set)
    tasks += [asyncio.create_task(batcher.call(len, "call")), asyncio.create_task(batcher("last"))]
    await until(lambda: batcher.waiting == 2)
    for asked in (batcher.call(len, "x"), batcher("x")):
      with pytest.raises(Busy, match="2 queries wait"):
        await asked
    blocking.gate.set()
    return await asyncio.gather(*tasks)

  assert run_with(batcher, work) == ["first", 4, "last"]
  assert batcher.waiting == 0
