"""Lines that any terminal can show, on any stream."""

import errno
import io
import logging
import os
import sys

import numpy as np
import pytest

from udh_jax.commands import duplicates
from udh_jax.commands.ending import give_text, guarded, require_apart
from udh_jax.errors import InputError
from udh_jax.retrieval import HammingIndex

NAME = "図\n\x1b[31m \udcff.png"


def narrow(monkeypatch):
  """Makes standard output and error those of a terminal that knows Latin letters alone."""
  streams = {name: io.TextIOWrapper(io.BytesIO(), "latin-1") for name in ("stdout", "stderr")}
  for name, stream in streams.items():
    monkeypatch.setattr(sys, name, stream)

  def shown(name):
    streams[name].flush()
    return streams[name].buffer.getvalue().decode("latin-1")

  return shown


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch):
  shown = narrow(monkeypatch)

  with pytest.raises(UnicodeEncodeError):
    print("図")
  guarded(lambda: print("é 図 \udcff"))
  assert shown("stdout") == "é \\u56f3 \\udcff\n"


def test_an_error_is_one_line_whatever_name_it_tells(monkeypatch):
  shown = narrow(monkeypatch)

  def run():
    raise InputError(f"{NAME} cannot be read.")

  with pytest.raises(SystemExit) as ended:
    guarded(run)
  assert ended.value.code == 2
  assert shown("stderr") == "error: \\u56f3 \\x1b[31m \\udcff.png cannot be read.\n"


def test_a_full_disk_is_one_line(monkeypatch):
  shown = narrow(monkeypatch)

  def run():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a.json")

  with pytest.raises(SystemExit) as ended:
    guarded(run)
  assert ended.value.code == 2
  assert shown("stderr") == "error: a.json cannot be read or written (No space left on device).\n"


@pytest.mark.parametrize(("prints_result", "status"), [(True, 0), (False, 2)])
def test_who_reads_no_further_is_told_what_was_left_undone(monkeypatch, prints_result, status):
  shown = narrow(monkeypatch)
  closed = []
  monkeypatch.setattr(sys.stderr, "close", lambda: closed.append(True))

  def run():
    raise BrokenPipeError

  with pytest.raises(SystemExit) as ended:
    guarded(run, prints_result=prints_result)
  assert ended.value.code == status and closed
  assert ("the work is not done" in shown("stderr")) == (not prints_result)


def test_names_that_are_not_utf_8_keep_their_bytes(monkeypatch):
  stream = io.TextIOWrapper(io.BytesIO(), "ascii")
  monkeypatch.setattr(sys, "stdout", stream)
  give_text("é \udce4.jpg")
  assert stream.buffer.getvalue() == "é ".encode() + b"\xe4.jpg"


def test_a_log_line_is_one_line_whatever_name_it_tells(monkeypatch):
  shown = narrow(monkeypatch)
  monkeypatch.setattr(logging.getLogger(), "handlers", [])
  logger = logging.getLogger("udh_jax.data.pictures")
  guarded(lambda: logger.warning("1 of 2 pictures are left out: %s", NAME))
  guarded(lambda: logging.getLogger("jax.other").error("%s", "no"))
  assert shown("stderr").splitlines() == [
    "warning: 1 of 2 pictures are left out: \\u56f3\\n\\x1b[31m \\udcff.png",
    "error: jax.other: no",
  ]


def test_streams_that_are_closed_or_missing_are_no_hindrance(monkeypatch):
  closed = io.TextIOWrapper(io.BytesIO(), "latin-1")
  closed.close()
  streams, ended = (None, closed, io.StringIO()), []
  for stream in streams:
    monkeypatch.setattr(sys, "stdout", stream)
    guarded(lambda: ended.append(sys.stdout))
  assert len(ended) == len(streams)


def test_no_output_is_an_input_or_another_output(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "a").write_text("read")
  (tmp_path / "link").symlink_to("a")
  require_apart({"--json": "b", "--csv": "c", "--page": None, "--more": ""}, ["a"])
  for path in ("a", "./a", "link", str(tmp_path / "a")):
    with pytest.raises(InputError, match="would be written over a; name another file for --csv"):
      require_apart({"--json": "b", "--csv": path}, ["a"])
  with pytest.raises(InputError, match=r"--json and --page are both \./b"):
    require_apart({"--json": "b", "--csv": "c", "--page": "./b"}, ["a"])


@pytest.fixture
def index(tmp_path):
  """An index of two pictures, which look alike to nothing."""
  looks = np.stack([np.zeros((2, 13), np.uint8), np.full((2, 13), 255, np.uint8)])
  sizes = {name: np.ones(2, np.uint32) for name in ("width", "height")}
  columns = {"look": looks, "size": np.ones(2, np.uint64)} | sizes
  made = HammingIndex(
    np.zeros((2, 4), np.uint8), ["a.png", "b.png"], about={"folder": str(tmp_path)}, columns=columns
  )
  made.save(tmp_path / "m.index")
  return tmp_path / "m.index"


@pytest.mark.parametrize("flag", ["--json", "--csv", "--page"])
def test_duplicates_are_not_written_over_their_index(index, failing, flag):
  before = index.read_bytes()
  line = failing(duplicates.main, ["--index", str(index), flag, str(index)])
  assert f"would be written over {index}" in line
  assert index.read_bytes() == before


def test_reports_of_duplicates_go_to_files_of_their_own(index, monkeypatch, failing):
  monkeypatch.chdir(index.parent)
  asked = ["--index", str(index)]
  line = failing(duplicates.main, [*asked, "--json", "x", "--csv", "x"])
  assert "--json and --csv are both x" in line
  assert "--page is -" in failing(duplicates.main, [*asked, "--page", "-"])
  assert "cannot both print" in failing(duplicates.main, [*asked, "--json", "-", "--csv", "-"])
  assert [path.name for path in index.parent.iterdir()] == ["m.index"]
  duplicates.main([*asked, "--json", "x", "--csv", "-"])
