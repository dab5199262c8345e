"""The program ``udh-jax``: learns hash codes, scores them, encodes pictures and searches them."""

import importlib
import sys

from udh_jax.commands.ending import fail
from udh_jax.commands.huge_pages import use_huge_pages

# Modules of `udh_jax.commands`, each with a function ``main`` of its arguments.
PROGRAMS = {
  "train": ("train", "trains a hash network by a configuration"),
  "eval": ("evaluate", "scores a finished run again, without training"),
  "encode": ("encode", "makes an index of a folder of pictures"),
  "search": ("search", "finds the neighbours of a picture or of words in an index"),
  "serve": ("serve", "shows neighbours on a page, and answers programs"),
}


def usage() -> str:
  """What ``udh-jax --help`` prints."""
  lines = [f"  {name:12}{words}" for name, (_, words) in PROGRAMS.items()]
  return "\n".join(["usage: udh-jax PROGRAM [options]", "", *lines, "", "udh-jax PROGRAM --help"])


def main() -> None:
  """Runs the program that the first argument names on the others."""
  if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
    print(usage())
    sys.exit(0 if len(sys.argv) > 1 else 2)
  name, arguments = sys.argv[1], sys.argv[2:]
  if name not in PROGRAMS:
    fail(f"there is no program {name!r}; choose one of {', '.join(PROGRAMS)}.")
  use_huge_pages()
  importlib.import_module(f"udh_jax.commands.{PROGRAMS[name][0]}").main(arguments)
