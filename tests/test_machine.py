import os
import pathlib

import pytest

from udh_jax.machine import cache_folder, num_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_only_cores_that_may_be_used_count():
  allowed = os.sched_getaffinity(0)
  try:
    os.sched_setaffinity(0, {min(allowed)})
    assert num_cores() == 1
  finally:
    os.sched_setaffinity(0, allowed)
  assert num_cores() == len(allowed)


def test_the_cache_is_where_the_environment_says(monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
  assert cache_folder() == pathlib.Path("/somewhere/udh_jax")
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", "/home/me")
  assert cache_folder() == pathlib.Path("/home/me/.cache/udh_jax")
