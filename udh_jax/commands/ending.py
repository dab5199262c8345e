"""How programs speak and end: in lines that any terminal can show, with a status for scripts."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from udh_jax.errors import InputError, TrainingError, require
from udh_jax.printable import printable


def show_anything() -> None:
  """Lets this program print any text to any stream, and log it.

  A character that the terminal's encoding lacks is printed as in a Python string, where it would
  be an error. Log lines are one line each.
  """
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
      with contextlib.suppress(ValueError):  # closed, or detached
        stream.reconfigure(errors="backslashreplace")
  root = logging.getLogger()
  if not root.handlers:
    root.addHandler(_Lines())
  for handler in root.handlers:
    if type(handler).__module__.startswith(("udh_jax.", "absl.")):
      handler.setFormatter(_OneLine())
  # Pillow warns of large pictures without their names, and `udh_jax.data.pictures` with them; of
  # damaged metadata, which nothing here reads; matplotlib of characters that its fonts lack.
  warnings.filterwarnings("ignore", module=r"PIL\b")
  warnings.filterwarnings("ignore", message="Glyph .* missing from")
  # It tells each attempt to connect, in several lines; the error that ends them is told anyway.
  logging.getLogger("psycopg.pool").setLevel(logging.ERROR)


class _Lines(logging.StreamHandler):
  """Writes to what standard error is at the time."""

  def __init__(self):
    logging.Handler.__init__(self, logging.WARNING)

  @property
  def stream(self):
    return sys.stderr


class _OneLine(logging.Formatter):
  """The level, whose line it is unless ours, and the message."""

  def format(self, record):
    whose = "" if record.name.split(".")[0] in ("udh_jax", "absl", "root") else f"{record.name}: "
    line = f"{record.levelname.lower()}: {whose}{printable(record.getMessage())}"
    return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def require_apart(outputs: Mapping[str, str | None], inputs: Iterable[str]) -> None:
  """Refuses to end with one file written over another.

  Args:
    outputs: Files to write, by the flag that names each; None and "" are none.
    inputs: Files that are read.

  Raises:
    InputError: If an output is an input, or two outputs are one file.
  """
  files = [(flag, path, os.path.realpath(path)) for flag, path in outputs.items() if path]
  known = {os.path.realpath(path): path for path in inputs} if files else {}
  flags: dict[str, str] = {}
  for flag, path, place in files:
    require(
      place not in known,
      f"{path} would be written over {known.get(place)}; name another file for {flag}.",
    )
    require(
      place not in flags, f"{flags.get(place)} and {flag} are both {path}; name a file for each."
    )
    flags[place] = flag


def fail(error: BaseException | str) -> NoReturn:
  """Prints one line and leaves with status 2."""
  text = printable(" ".join(str(error).split()))
  print(f"error: {text}", file=sys.stderr, flush=True)
  sys.exit(2)


def give_text(text: str) -> None:
  """Prints a file that others read: UTF-8, and names that are not keep their bytes."""
  if hasattr(sys.stdout, "buffer"):
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
  else:  # in a notebook
    sys.stdout.write(text)
  sys.stdout.flush()


def guarded(run: Callable[[], object], *, prints_result: bool = False) -> None:
  """Calls ``run``; `InputError`, `TrainingError` and `OSError` end the program with one line.

  Args:
    run: The program.
    prints_result: Who reads no further has what was wanted; otherwise work was left undone.
  """
  show_anything()
  try:
    run()
  except (InputError, TrainingError) as error:
    fail(error)
  except BrokenPipeError:  # the reader of our output went away, as head does
    if not prints_result:
      with contextlib.suppress(OSError):
        print(
          "error: what reads the output has gone, and the work is not done; run it again, with the "
          "output to a file.",
          file=sys.stderr,
          flush=True,
        )
    sys.stderr.close()
    sys.exit(0 if prints_result else 2)
  except OSError as error:  # a full disk, a folder that may not be written to
    what = error.filename or "A file"
    fail(f"{what} cannot be read or written ({error.strerror or error}).")
