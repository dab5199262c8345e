"""One program with many names, and Ctrl-C."""

import signal
import sys

import pytest

from udh_jax.commands import encode, main


def test_ctrl_c_ends_with_one_line_and_status_130(monkeypatch, capsys):
  def interrupted(arguments):
    raise KeyboardInterrupt

  before = signal.getsignal(signal.SIGINT)
  monkeypatch.setattr(encode, "main", interrupted)
  monkeypatch.setattr("udh_jax.commands.huge_pages.helpful", lambda: False)
  monkeypatch.setattr(sys, "argv", ["udh-jax", "encode", "--help"])
  try:
    with pytest.raises(SystemExit) as ended:
      main.main()
  finally:
    signal.signal(signal.SIGINT, before)
  assert ended.value.code == 130
  line = "stopped by Ctrl-C; the same command goes on where it last saved.\n"
  assert capsys.readouterr() == ("", line)


def test_a_name_of_no_program_is_refused(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["udh-jax", "serch"])
  with pytest.raises(SystemExit) as ended:
    main.main()
  assert ended.value.code == 2
  start = "error: there is no program 'serch'; choose one of train, eval, encode, search"
  assert capsys.readouterr().err.startswith(start)
