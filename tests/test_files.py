"""Files that are whole or absent, and what a killed writer leaves."""

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from udh_jax.errors import InputError
from udh_jax.files import (
  held,
  read_json,
  require_writable,
  write_atomically,
  write_json,
  write_text,
)

ROOT = pathlib.Path(__file__).parents[1]
KILLED = """
import os, pathlib, signal, sys
from udh_jax.files import write_atomically
def write(file):
  file.write(b"half")
  file.flush()
  os.kill(os.getpid(), signal.SIGKILL)
write_atomically(sys.argv[1], write)
"""


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
  with held(tmp_path):
    with (
      pytest.raises(InputError, match=r"^Another program is at work in .*; wait until"),
      held(tmp_path),
    ):
      pytest.fail("both have it")
    (tmp_path / "below").mkdir()
    with held(tmp_path / "below"):
      pass
  with held(tmp_path):
    pass
  with held(tmp_path / "not there"):  # who makes it says why it cannot be used
    pass


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path):
  path = tmp_path / "a.json"
  write_text(path, "old")
  killed = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, check=False)
  assert killed.returncode == -9
  others = (".a.json.mine.tmp", ".a.json.0123456789abcdef.tmp.old")
  for name in others:
    (tmp_path / name).write_text("another program's")
  assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 4
  write_text(tmp_path / "other.json", "its own")  # not the file that the killed one wrote
  assert len(list(tmp_path.iterdir())) == 5
  write_text(path, "new")
  kept = sorted([*others, "a.json", "other.json"])
  assert sorted(file.name for file in tmp_path.iterdir()) == kept


def test_a_writer_at_work_is_left_alone(tmp_path):
  path = tmp_path / "a"

  def write(file):
    file.write(b"first")
    write_text(path, "second")  # by another, meanwhile

  write_atomically(path, write)
  assert path.read_text() == "first"
  assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_a_failed_writer_leaves_nothing(tmp_path):
  path = tmp_path / "a"
  write_text(path, "old")

  def write(file):
    file.write(b"half")
    raise RuntimeError("no more")

  with pytest.raises(RuntimeError):
    write_atomically(path, write)
  assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]


def test_who_may_read_a_file_is_the_user_s_own_choice(tmp_path):
  before = os.umask(0o027)
  try:
    write_text(tmp_path / "a", "mine")
  finally:
    os.umask(before)
  assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, mode):
  path, seen = tmp_path / "a", []
  path.write_text("old")
  path.chmod(mode)
  write_atomically(path, lambda file: seen.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode)))
  assert seen == [mode]  # from the beginning: nobody else reads half of it
  assert stat.S_IMODE(path.stat().st_mode) == mode
  assert path.read_text() == ""


@pytest.mark.parametrize("there", [True, False])
def test_the_file_that_a_symbolic_link_names_is_written(tmp_path, there):
  (tmp_path / "far").mkdir()
  real, link = tmp_path / "far" / "real", tmp_path / "link"
  if there:
    real.write_text("old")
    real.chmod(0o600)
  (tmp_path / "between").symlink_to("far/real")
  link.symlink_to("between")
  require_writable(link)
  write_text(link, "new")
  assert link.is_symlink() and (tmp_path / "between").is_symlink()
  assert real.read_text() == "new"
  assert not there or stat.S_IMODE(real.stat().st_mode) == 0o600
  assert [file.name for file in real.parent.iterdir()] == ["real"]
  real.unlink()
  real.parent.rmdir()
  with pytest.raises(InputError, match=r"The folder .*far does not exist"):
    require_writable(link)


@pytest.mark.parametrize("name", ["a" * 255, "図" * 85, "\udcff.json"])
def test_any_name_that_the_file_system_takes_can_be_written(tmp_path, name):
  require_writable(tmp_path / name)
  write_text(tmp_path / name, "x")
  assert [file.name for file in tmp_path.iterdir()] == [name]


def test_what_cannot_be_written_is_known_before(tmp_path):
  (tmp_path / "file").write_text("")
  os.mkfifo(tmp_path / "pipe")
  for path, words in {
    tmp_path: "is a folder",
    tmp_path / "none" / "a": "does not exist",
    tmp_path / "file" / "a": r"does not exist|cannot be written \(Not a directory",
    tmp_path / "pipe": "not a regular file",
    "/dev/null": "not a regular file",
    tmp_path / ("a" * 256): r"cannot be written \(File name too long\)",
  }.items():
    with pytest.raises(InputError, match=words):
      require_writable(path)
  require_writable(tmp_path / "file")
  require_writable(tmp_path / "new")
  assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "pipe"]


def test_a_folder_without_permission_is_known_before(tmp_path, monkeypatch):
  def refused(*arguments):
    raise PermissionError(13, "Permission denied", arguments[0])

  monkeypatch.setattr("udh_jax.files.os.open", refused)  # root may write anywhere
  with pytest.raises(InputError, match=r"cannot be written \(Permission denied\)"):
    require_writable(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": \xff}', b"[" * 100_000, b"nothing"])
def test_what_is_no_json_names_the_file(tmp_path, content):
  (tmp_path / "a.json").write_bytes(content)
  with pytest.raises(InputError, match=r"a\.json is damaged: it is not JSON") as error:
    read_json(tmp_path / "a.json")
  assert "\n" not in str(error.value)
  with pytest.raises(InputError, match=r"none cannot be read \(No such file"):
    read_json(tmp_path / "none")
  write_json(tmp_path / "a.json", {"ü": [1, None]})
  assert read_json(tmp_path / "a.json") == {"ü": [1, None]}
