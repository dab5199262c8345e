import os
import pathlib
import platform

import jax
import pytest

from udh_jax import machine
from udh_jax.machine import cache_folder, keep_compiled, num_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_only_cores_that_may_be_used_count(monkeypatch, tmp_path):
  monkeypatch.setattr(machine, "CGROUP", tmp_path)  # where there is no limit
  allowed = os.sched_getaffinity(0)
  try:
    os.sched_setaffinity(0, {min(allowed)})
    assert num_cores() == 1
  finally:
    os.sched_setaffinity(0, allowed)
  assert num_cores() == len(allowed)


@pytest.mark.parametrize(
  ("files", "expected"),
  [
    ({"cpu.max": "max 100000"}, 64),
    ({"cpu.max": "150000 100000"}, 2),
    ({"cpu.max": "10000 100000"}, 1),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
    ({"cpu.max": "damaged"}, 64),
    ({}, 64),
  ],
)
def test_the_time_that_a_container_may_use_counts(monkeypatch, tmp_path, files, expected):
  for name, text in files.items():
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text + "\n")
  monkeypatch.setattr(machine, "CGROUP", tmp_path)
  monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
  assert machine.num_cores() == expected


def test_the_cache_is_where_the_environment_says(monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
  assert cache_folder() == pathlib.Path("/somewhere/udh_jax")
  monkeypatch.delenv("XDG_CACHE_HOME")
  monkeypatch.setenv("HOME", "/home/me")
  assert cache_folder() == pathlib.Path("/home/me/.cache/udh_jax")


@pytest.fixture
def unset():
  names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
  before = {name: jax.config.values[name] for name in names}
  jax.config.update(names[0], None)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def test_what_is_compiled_is_kept_for_such_processors(monkeypatch, unset, tmp_path):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  keep_compiled()
  found = pathlib.Path(jax.config.values["jax_compilation_cache_dir"])
  assert found.parent == tmp_path / "udh_jax" / "compiled"
  assert found.name.startswith(platform.machine())
  monkeypatch.setattr(pathlib.Path, "read_text", lambda path: "flags : another processor")
  jax.config.update("jax_compilation_cache_dir", None)
  keep_compiled()
  assert jax.config.values["jax_compilation_cache_dir"] != str(found)


def test_where_nothing_can_be_kept_nothing_is(monkeypatch, unset, tmp_path):
  (tmp_path / "file").write_text("no folder")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  keep_compiled()
  assert jax.config.values["jax_compilation_cache_dir"] is None


def test_where_the_user_wants_it_kept_it_stays(monkeypatch, unset):
  monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
  jax.config.update("jax_compilation_cache_dir", "/chosen")
  keep_compiled()
  assert jax.config.values["jax_compilation_cache_dir"] == "/chosen"
