"""Ten kills at random moments; docs/robustness.md has the result of a hundred."""

import kills
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_ten_kills_at_random_moments_change_nothing(tmp_path):
  counted = kills.run(tmp_path, kills=10, seed=1)
  assert {name: count["kills"] for name, count in counted.items()} == {
    "train": 4,
    "encode": 3,
    "update": 3,
  }
  assert all(count["ends"] >= 1 and count["files read"] for count in counted.values())
