"""Batches of pictures in a fixed order: the position in the data is the step number alone."""

import collections
import concurrent.futures
import functools
import itertools
from collections.abc import Generator, Sized
from typing import Any, Protocol

import numpy as np

from udh_jax.data.protocol import EPOCH, permutation
from udh_jax.errors import require
from udh_jax.machine import num_cores


class ShuffledBatches:
  """Batches of rows over endless epochs, as a pure function of the step.

  The rows of each epoch come in an order of its own. Batches run on across the end of an epoch, so
  every row is used once an epoch, none is dropped, and a batch may be larger than the data set.
  """

  def __init__(self, rows: np.ndarray, batch_size: int, *, seed: int):
    """Keeps the arguments.

    Args:
      rows: Rows to shuffle. Integer array of shape ``[n]``.
      batch_size: Rows in a batch, over all processes.
      seed: Non-negative; with the epoch's number it gives the epoch's order.

    Raises:
      InputError: If there are no rows or the batch size is less than 1.
    """
    rows = np.asarray(rows, np.int64)
    require(
      rows.ndim == 1 and len(rows) > 0,
      f"Batches need a list of at least one row, and the shape given is {rows.shape}; "
      "check that the split is not empty.",
    )
    require(batch_size >= 1, f"batch_size is {batch_size}; it has to be at least 1.")
    self._rows = rows
    self._batch_size = batch_size
    # A batch touches one or two epochs, unless it is larger than the data set.
    self._epoch = functools.lru_cache(maxsize=2)(
      lambda epoch: rows[permutation(len(rows), seed, EPOCH, epoch)]
    )

  def __getitem__(self, step: int) -> np.ndarray:
    """Rows of one step, all processes together. Array of shape ``[batch_size]``, int64."""
    if step < 0:
      raise IndexError(f"step {step}: steps count from 0")
    epoch, first = divmod(step * self._batch_size, len(self._rows))
    taken, parts = 0, []
    while taken < self._batch_size:
      part = self._epoch(epoch)[first : first + self._batch_size - taken]
      parts.append(part)
      taken, epoch, first = taken + len(part), epoch + 1, 0
    return np.concatenate(parts)


class IndexBatches(Protocol):
  """Rows by step: a sequence of arrays, or what makes each when it is asked for."""

  def __getitem__(self, step: int, /) -> np.ndarray:
    """Rows of a step, -1 for padding."""
    ...


def read_batches(
  dataset: Any,
  index_batches: IndexBatches,
  *,
  start: int = 0,
  stop: int | None = None,
  num_threads: int | None = None,
  images: bool = True,
) -> Generator[dict[str, np.ndarray], None, None]:
  """Reads batches ahead of the caller, in order.

  Each batch is one task of a thread pool, and as many as there are threads are under way: decoding
  releases Python's lock. Closing the iterator waits for the tasks at work and drops the others.

  Args:
    dataset: A `Dataset`.
    index_batches: ``index_batches[i]`` are the rows that this process reads at step i, -1 for
      padding.
    start: First step.
    stop: One after the last step; None is ``len(index_batches)``, or no end if it has no length.
    num_threads: Threads that read; None is one for each processor, at most 8.
    images: Whether images are read at all; without them a batch has no ``image``.

  Yields:
    For each step a dictionary: ``index``, int32 array of shape ``[b]``; ``image``, array of shape
    ``[b, h, w, 3]`` or ``[b, d]``; and ``text`` ``[b, t]`` where there are texts. Zero where the
    index is -1.

  Raises:
    InputError: If a picture cannot be read; the message names it.
  """
  if stop is None and isinstance(index_batches, Sized):
    stop = len(index_batches)
  steps = itertools.count(start) if stop is None else range(start, stop)
  num_threads = num_threads or min(8, num_cores())
  pool = concurrent.futures.ThreadPoolExecutor(num_threads, thread_name_prefix="read_batches")
  pending: collections.deque[concurrent.futures.Future] = collections.deque()
  try:
    for step in steps:
      pending.append(pool.submit(_read, dataset, np.asarray(index_batches[step]), images))
      if len(pending) > num_threads:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    pool.shutdown(wait=True, cancel_futures=True)


def _read(dataset, rows, images):
  there = np.flatnonzero(rows >= 0)
  batch = {"index": rows.astype(np.int32)}
  if images:
    image = np.zeros((len(rows), *dataset.image_shape), dataset.image_dtype)
    if isinstance(dataset.images, np.ndarray):
      image[there] = dataset.images[rows[there]]
    else:
      for position in there:
        image[position] = dataset.images[rows[position]]
    batch["image"] = image
  if dataset.texts is not None:
    batch["text"] = np.zeros((len(rows), dataset.texts.shape[1]), dataset.texts.dtype)
    batch["text"][there] = dataset.texts[rows[there]]
  return batch
