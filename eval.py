"""Scores a finished run without training: python eval.py --workdir DIR [--set score.at=0]."""

import ast

from absl import flags

from udh_jax.commands.huge_pages import use_huge_pages
from udh_jax.methods import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder that train.py has finished.")
_SET = flags.DEFINE_multi_string(
  "set", [], "field=value of the stored configuration to replace, such as data.path=DIR."
)


def literal(text: str):
  """A Python value where the text is one, else the text."""
  try:
    return ast.literal_eval(text)
  except (SyntaxError, ValueError):
    return text


def main() -> None:
  from udh_jax.errors import require
  from udh_jax.methods.run import score

  for item in _SET.value:
    require("=" in item, f"--set {item}: write field=value.")
  score(_WORKDIR.value, {k: literal(v) for k, v in (item.split("=", 1) for item in _SET.value)})


if __name__ == "__main__":
  use_huge_pages()
  flags.mark_flags_as_required(["workdir"])
  cli.main(main)
