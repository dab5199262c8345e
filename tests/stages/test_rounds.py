"""Whose turn it is, step by step."""

import numpy as np
from ml_collections import ConfigDict

from udh_jax.stages.rounds import Rounds


def settings(**changes):
  values = {"rounds": 3, "sampled_pairs": 7, "epochs": 2, "batch_size": 4} | changes
  return ConfigDict(values)


def test_each_round_draws_trains_embeds_and_codes():
  rows = np.arange(100, 110)
  rounds = Rounds(rows, settings(batch_size=5), seed=1, num_devices=3)
  kinds = [rounds.kind(step) for step in range(len(rounds))]
  assert kinds == (["train"] * 3 + ["embed"] * 2 + ["codes"]) * 3
  draws = []
  for start in (0, 6, 12):
    sampled = rounds.sampled(start)
    draws.append(tuple(sampled))
    assert len(set(sampled)) == 7 and set(sampled) <= set(rows)
    trained = np.concatenate([rounds[start + i] for i in range(3)])
    trained = trained[trained >= 0]
    counts = np.unique(trained, return_counts=True)[1]
    assert len(trained) == 15 and set(trained) == set(sampled) and counts.min() >= 2
    shown = np.full(8, -1)  # the last place is nowhere
    for step in (start + 3, start + 4):
      read, slots = rounds[step], rounds.slots(step)
      assert len(read) == len(slots) == 6  # filled up to a multiple of the devices
      shown[slots[read >= 0]] = read[read >= 0]
      assert (slots[read < 0] == 7).all()
    np.testing.assert_array_equal(shown[:7], sampled)
    assert (rounds[start + 5] == -1).all()
  assert len(set(draws)) == 3


def test_more_sampled_pairs_than_there_are_take_them_all():
  rounds = Rounds(np.arange(5), settings(sampled_pairs=2000), seed=0, num_devices=1)
  assert sorted(rounds.sampled(0)) == list(range(5))
