"""One program with many names, and Ctrl-C."""

import os
import signal
import subprocess
import sys
from importlib.metadata import version

import pytest

import udh_jax
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


def test_the_version_is_told_without_jax():
  code = """
import sys
from udh_jax.commands import main
sys.argv = ["udh-jax", "--version"]
try:
  main.main()
finally:
  print("jax" in sys.modules)
"""
  ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  told = f"udh_jax {udh_jax.__version__}, jax {version('jax')}"
  assert (ended.stdout.splitlines(), ended.stderr) == ([told, "False"], "")


SAID = "stopped by Ctrl-C; the same command goes on where it last saved.\n"
# Where a signal comes -> what is done there, status, output and errors.
MOMENTS = {
  "threads are at work": ("interrupt()", 130, "", SAID),
  "an import makes another error of it": (
    """
  try:
    interrupt()
  except KeyboardInterrupt as error:
    raise ImportError("the extension") from error
""",
    130,
    "",
    SAID,
  ),
  "a callback swallows it": (
    """
  class Callback:
    def __del__(self):
      interrupt()
  Callback()
  print("went on")
""",
    130,
    "",
    SAID,
  ),
  "the interpreter closes down": (
    """
  print("done", flush=True)
  atexit.register(interrupt)
""",
    0,
    "done\n",
    "",
  ),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_at_any_moment_is_one_line_or_nothing(moment):
  inside, *expected = MOMENTS[moment]
  code = f"""
import atexit, os, signal, sys, types
from udh_jax.commands import main
atexit.register(print, end="")

def interrupt():
  os.kill(os.getpid(), signal.SIGINT)
  for _ in range(1000):  # until the interpreter looks
    pass

def work(arguments):
  {inside.strip()}

fake = sys.modules["udh_jax.commands.encode"] = types.ModuleType("encode")
fake.main = work
main.program("encode")
"""
  ended = subprocess.run(
    [sys.executable, "-c", code],
    capture_output=True,
    text=True,
    check=False,
    timeout=120,
    env=os.environ | {"GLIBC_TUNABLES": ""},
  )
  assert [ended.returncode, ended.stdout, ended.stderr] == expected
