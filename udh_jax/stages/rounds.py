"""Whose turn it is in the student's training: the networks', their outputs' or the codes'."""

import functools

import numpy as np

from udh_jax.data.loader import ShuffledBatches
from udh_jax.data.protocol import SAMPLE, permutation

TRAIN, EMBED, CODES = "train", "embed", "codes"  # what a step does


class Rounds:
  """Which pairs each step reads, as a pure function of the step's number.

  A round draws some training pairs, trains on them, then shows each of them to the networks once,
  then improves the codes of all pairs.
  """

  def __init__(self, rows: np.ndarray, settings, *, seed: int, num_devices: int):
    """Keeps the arguments.

    Args:
      rows: The training pairs. Integer array of shape ``[n]``.
      settings: ``rounds``, ``sampled_pairs``, ``epochs`` (over them, in each round) and
        ``batch_size``.
      seed: Decides every draw.
      num_devices: Batches are filled up with -1 to a multiple of it.
    """
    self._size = settings.batch_size
    self.num_sampled = min(settings.sampled_pairs, len(rows))
    self._padding = -self._size % num_devices
    self.train_steps = -(-settings.epochs * self.num_sampled // self._size)
    self.embed_steps = -(-self.num_sampled // self._size)
    self.round_steps = self.train_steps + self.embed_steps + 1
    self.num_steps = settings.rounds * self.round_steps
    self._draw = functools.lru_cache(maxsize=2)(
      lambda number: rows[permutation(len(rows), seed, SAMPLE, number)[: self.num_sampled]]
    )
    self._order = functools.lru_cache(maxsize=2)(
      lambda number: ShuffledBatches(self._draw(number), self._size, seed=seed)
    )

  def __len__(self) -> int:
    return self.num_steps

  def kind(self, step: int) -> str:
    """What a step does."""
    position = step % self.round_steps
    if position < self.train_steps:
      return TRAIN
    return EMBED if position < self.round_steps - 1 else CODES

  def sampled(self, step: int) -> np.ndarray:
    """The pairs of the step's round. Array of shape ``[num_sampled]``, int64."""
    return self._draw(step // self.round_steps)

  def slots(self, step: int) -> np.ndarray:
    """Where among the sampled pairs the rows of an embedding step stand; num_sampled is nowhere."""
    first = (step % self.round_steps - self.train_steps) * self._size
    slots = np.minimum(first + np.arange(self._size), self.num_sampled)
    return np.append(slots, np.full(self._padding, self.num_sampled))

  def __getitem__(self, step: int) -> np.ndarray:
    """Rows that a step reads, -1 for padding; none but padding where codes are improved."""
    kind, sampled = self.kind(step), self.sampled(step)
    if kind == TRAIN:
      number, position = divmod(step, self.round_steps)
      rows = self._order(number)[position]
    elif kind == EMBED:
      slots = self.slots(step)[: self._size]
      rows = np.append(sampled, -1)[slots]
    else:
      rows = np.full(self._size, -1)
    return np.append(rows, np.full(self._padding, -1))
