"""The program ``udh-jax``: learns hash codes, scores them, encodes pictures and searches them."""

import importlib
import importlib.metadata
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

# Nothing of the package is imported before `run_by_name` takes care of Ctrl-C.

# Modules of `udh_jax.commands`, each with a function ``main`` of its arguments.
PROGRAMS = {
  "train": ("train", "trains a hash network by a configuration"),
  "eval": ("evaluate", "scores a finished run again, without training"),
  "encode": ("encode", "encodes a folder of pictures into an index"),
  "search": ("search", "finds the neighbours of a picture or of words in an index"),
  "serve": ("serve", "serves a search page and an interface for programs"),
  "copy": ("copy", "copies codes between indexes, databases and the folders of encode --ray"),
  "duplicates": ("duplicates", "finds duplicate pictures in an index"),
}
INTERRUPTED = 130  # status, as of a shell
_CONTINUED = ("train", "encode")

# What programs need beside the core, and the extra that brings it. Asked for at the start, because
# a plot is drawn after hours of training.
_RUNS = {"ml_collections": "train", "clu": "train", "matplotlib": "report"}
NEEDS = {"train": _RUNS, "eval": _RUNS}


def usage() -> str:
  """What ``udh-jax --help`` prints."""
  lines = [f"  {name:12}{words}" for name, (_, words) in PROGRAMS.items()]
  ends = ["", "udh-jax PROGRAM --help", "udh-jax --version"]
  return "\n".join(["usage: udh-jax PROGRAM [options]", "", *lines, *ends])


def versions() -> str:
  """What ``udh-jax --version`` prints; JAX, which takes a while, is not imported for it."""
  own = importlib.import_module("udh_jax").__version__  # of a checkout, too
  return f"udh_jax {own}, jax {importlib.metadata.version('jax')}"


def require_needs(name: str) -> None:
  """Refuses to start a program without what it needs.

  Raises:
    InputError: If an extra is not installed.
  """
  from udh_jax.extras import require_installed

  for module, extra in NEEDS.get(name, {}).items():
    require_installed(module, extra=extra)


def run_by_name(name: str, arguments: Sequence[str] | None = None) -> None:
  """Runs a program; Ctrl-C ends it with one line and status 130.

  Args:
    name: Of `PROGRAMS`.
    arguments: Of the command line, without the name; None is what `sys.argv` holds.
  """
  try:
    from udh_jax.commands.ending import guarded
    from udh_jax.commands.huge_pages import use_huge_pages

    guarded(lambda: require_needs(name))
    use_huge_pages()
    importlib.import_module(f"udh_jax.commands.{PROGRAMS[name][0]}").main(arguments)
  except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a second one ends it at once
    _say_interrupted(name)
    sys.exit(INTERRUPTED)


def main() -> None:
  """Runs the program that the first argument names on the others."""
  if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    print(usage())
    sys.exit(0 if len(sys.argv) > 1 else 2)
  if sys.argv[1] == "--version":
    print(versions())
    sys.exit(0)
  name, arguments = sys.argv[1], sys.argv[2:]
  if name not in PROGRAMS:
    from udh_jax.commands.ending import fail

    fail(f"there is no program {name!r}; choose one of {', '.join(PROGRAMS)}.")
  run_by_name(name, arguments)


def program(name: str | None = None) -> NoReturn:
  """`main`, or the program ``name``, as all that its process does.

  Ctrl-C is one line and status 130 wherever it comes: in an import, which makes another error of
  it, in a callback, which swallows it, or while threads of XLA compile, which would crash the
  interpreter if it closed down beside them. Once the work is done it is ignored.
  """
  came = False

  def interrupt(number, frame):
    nonlocal came
    came = True
    raise KeyboardInterrupt

  def swallowed(unraisable):
    if came and issubclass(unraisable.exc_type, KeyboardInterrupt):
      _end_interrupted(name)
    sys.__unraisablehook__(unraisable)

  signal.signal(signal.SIGINT, interrupt)
  sys.unraisablehook = swallowed
  status: int | str | None = 0
  try:
    main() if name is None else run_by_name(name)
  except SystemExit as ended:
    status = ended.code
  except BaseException:
    if came:
      _end_interrupted(name)
    raise
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  if status == INTERRUPTED:
    _end_now()
  sys.exit(status)


def _say_interrupted(name: str | None) -> None:
  more = "; the same command goes on where it last saved" if name in _CONTINUED else ""
  print(f"stopped by Ctrl-C{more}.", file=sys.stderr, flush=True)


def _end_interrupted(name: str | None) -> NoReturn:
  _say_interrupted(sys.argv[1] if name is None else name)
  _end_now()


def _end_now() -> NoReturn:
  sys.stdout.flush()
  os._exit(INTERRUPTED)
