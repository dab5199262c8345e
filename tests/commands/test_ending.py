"""Lines that any terminal can show, on any stream."""

import errno
import io
import logging
import os
import sys

import pytest

from udh_jax.commands.ending import guarded
from udh_jax.errors import InputError

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
