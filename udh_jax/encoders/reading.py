"""Pictures read and decoded ahead of the network that takes them, in batches of one shape."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
  function: Callable[[Item], Result], items: Iterable[Item], batch_size: int, threads: int
) -> Iterator[list[Result]]:
  """Calls a function of each item in threads, two batches ahead of the one that is asked for.

  Args:
    function: Of an item.
    items: Taken as they are needed.
    batch_size: Items of a batch; the last one may have fewer.
    threads: That call it.

  Yields:
    Batches of what the function returned, in the order of the items.
  """
  items = iter(items)
  waiting: collections.deque[Any] = collections.deque()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    while True:
      while len(waiting) < 3 and (batch := list(itertools.islice(items, batch_size))):
        waiting.append([pool.submit(function, item) for item in batch])
      if not waiting:
        return
      yield [future.result() for future in waiting.popleft()]


def read_ahead(
  items: Iterable[tuple[str, Callable[[int], np.ndarray]]], size: int, batch_size: int, threads: int
) -> Iterator[list[tuple[str, np.ndarray | str]]]:
  """Reads pictures in threads, two batches ahead.

  Args:
    items: Names, and for each a function of a size that reads the picture, or raises OSError or
      ValueError where it cannot.
    size: Side of the square that each becomes.
    batch_size: Pictures of a batch; the last one may have fewer.
    threads: That read.

  Yields:
    Batches of names, each with its picture, uint8 ``[size, size, 3]``, or what is wrong with it.
  """

  def read(item):
    try:
      return item[0], item[1](size)
    except (OSError, ValueError) as error:
      return item[0], " ".join(str(error).split()) or type(error).__name__

  return ahead(read, items, batch_size, threads)


def encode_batch(
  encoder: Callable[[np.ndarray], np.ndarray], pictures: Sequence[np.ndarray], batch_size: int
) -> np.ndarray:
  """Codes, or outputs, of a batch that may not be full: filled up, so that one shape is compiled.

  Args:
    encoder: From uint8 ``[batch_size, size, size, 3]`` to a row for each.
    pictures: 1 to ``batch_size``, each uint8 ``[size, size, 3]``.
    batch_size: Pictures of a full batch.

  Returns:
    A row for each picture: of codes uint8 ``[len(pictures), bytes]``.
  """
  full = np.zeros((batch_size, *pictures[0].shape), np.uint8)
  full[: len(pictures)] = pictures
  return np.asarray(encoder(full))[: len(pictures)]
