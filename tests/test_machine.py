import os
import pathlib
import platform

import jax
import pytest

from udh_jax.machine import cache_folder, keep_compiled, num_cores


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
