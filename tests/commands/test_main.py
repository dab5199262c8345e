"""One program with many names, and Ctrl-C at any moment."""

import pathlib
import signal
import subprocess
import sys
import time

import pytest

from udh_jax.commands import encode, main

ROOT = pathlib.Path(__file__).parents[2]


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
  assert capsys.readouterr().err == (
    "error: there is no program 'serch'; choose one of train, eval, encode, search.\n"
  )


@pytest.mark.slow
@pytest.mark.parametrize("program", ["train.py", "-m"])
@pytest.mark.parametrize("wait", [0.3, 1.0, 3.0, 8.0, 12.0])
def test_ctrl_c_at_any_moment(tmp_path, program, wait):
  name = ["-m", "udh_jax", "train"] if program == "-m" else [program]
  arguments = ["--config", "configs/quickstart.py", "--workdir", str(tmp_path)]
  process = subprocess.Popen(
    [sys.executable, *name, *arguments], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE,
    text=True,
  )  # fmt: skip
  time.sleep(wait)
  process.send_signal(signal.SIGINT)
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 130, errors
  assert errors == "stopped by Ctrl-C; the same command goes on where it last saved.\n"
