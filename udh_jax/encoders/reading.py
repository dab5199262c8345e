"""Pictures read and decoded ahead of the network that takes them."""

import collections
import concurrent.futures
import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np


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

  items, ahead = iter(items), collections.deque()
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:
    while True:
      while len(ahead) < 3 and (batch := list(itertools.islice(items, batch_size))):
        ahead.append([pool.submit(read, item) for item in batch])
      if not ahead:
        return
      yield [future.result() for future in ahead.popleft()]
