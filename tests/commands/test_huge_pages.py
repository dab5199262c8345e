import json
import os
import subprocess
import sys

import pytest

from udh_jax.commands import huge_pages
from udh_jax.commands.huge_pages import VALUE, VARIABLE

PROGRAM = """
import json, os, sys
from udh_jax.commands.huge_pages import use_huge_pages
print("begun", flush=True)
use_huge_pages()
print(json.dumps([sys.argv[1:], sys.flags.utf8_mode, os.environ["GLIBC_TUNABLES"]]))
"""


def shown(*before, environment):
  command = [sys.executable, "-X", "utf8", *before, "--a b", "-c"]
  return subprocess.run(
    command, env=environment, check=True, capture_output=True, text=True
  ).stdout.splitlines()


@pytest.fixture
def program(tmp_path):
  path = tmp_path / "program.py"
  path.write_text(PROGRAM)
  return str(path)


def test_a_program_begins_again_once_with_the_same_arguments(program, monkeypatch):
  monkeypatch.delenv(VARIABLE, raising=False)
  if not huge_pages.helpful():
    pytest.skip("this system gives large pages always or never, or has another C library")
  *begun, last = shown(program, environment=dict(os.environ))
  assert begun == ["begun", "begun"]
  assert json.loads(last) == [["--a b", "-c"], 1, VALUE]


def test_what_the_user_has_set_is_kept(program):
  *begun, last = shown(program, environment=os.environ | {VARIABLE: ""})
  assert begun == ["begun"]
  assert json.loads(last) == [["--a b", "-c"], 1, ""]


@pytest.mark.parametrize(
  ("switch", "library", "expected"),
  [
    ("always [madvise] never", ("glibc", "2.36"), True),
    ("[always] madvise never", ("glibc", "2.36"), False),
    ("always madvise [never]", ("glibc", "2.36"), False),
    (None, ("glibc", "2.36"), False),
    ("always [madvise] never", ("glibc", "2.31"), False),
    ("always [madvise] never", ("", ""), False),
  ],
)
def test_it_helps_where_the_kernel_waits_to_be_asked(
  switch, library, expected, tmp_path, monkeypatch
):
  monkeypatch.delenv(VARIABLE, raising=False)
  monkeypatch.setattr(huge_pages, "_SWITCH", tmp_path / "enabled")
  monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: library)
  if switch is not None:
    (tmp_path / "enabled").write_text(switch)
  assert huge_pages.helpful() == expected
  monkeypatch.setenv(VARIABLE, "glibc.malloc.check=3")
  assert not huge_pages.helpful()
