"""Scores a finished run without training: udh-jax eval --workdir DIR [--config.score.at=0].

Any field of the run's stored configuration can be set, as in train.py: where the data are now
(--config.data.path=DIR), or another definition of the score. A work directory of several lengths
and seeds (train --bits=16,32 --seeds=0,1) is scored whole, and its tables are written anew.
"""

import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from udh_jax.commands.ending import guarded
from udh_jax.commands.flags import (
  asks_for_help,
  code_lengths,
  fields_in,
  replace_config_flag,
  run_program,
  value_of,
  work_directory,
)
from udh_jax.configuration import field_names, unknown_field
from udh_jax.errors import require


def as_config_flags(arguments: Sequence[str]) -> list[str]:
  """Arguments with ``--set field=value``, the older form, as ``--config.field=value``.

  Raises:
    InputError: If ``--set`` stands without ``field=value``.
  """
  found, rest = [], list(arguments)
  while rest:
    argument = rest.pop(0)
    if argument in ("--set", "-set"):
      argument = f"--set={rest.pop(0) if rest else ''}"
    if argument.startswith(("--set=", "-set=")):
      item = argument.partition("=")[2]
      require("=" in item, f"--set {item}: write field=value.")
      argument = f"--config.{item}"
    found.append(argument)
  return found


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  # --workdir is needed before flags can be parsed: it has the configuration.
  from udh_jax.methods import sweep
  from udh_jax.methods.run import stored_config

  arguments = sys.argv[1:] if arguments is None else arguments
  flags.mark_flags_as_required(["workdir"])

  def prepare():
    nonlocal arguments
    arguments = as_config_flags(arguments)
    workdir = value_of("workdir", arguments)
    if workdir is not None:
      whole = sweep.is_sweep(workdir)
      config = sweep.stored_config_of_first(workdir) if whole else stored_config(workdir)
      known = field_names(config)
      for field in fields_in(arguments):
        require(field in known, lambda field=field: unknown_field(field, known))
        require(
          not (whole and field in ("bits", "seed")),
          f"{workdir} holds runs of several lengths and seeds; choose lengths with --bits, and a "
          f"seed by its own --workdir, such as {workdir}/seed_{config.seed}.",
        )
      replace_config_flag(
        lambda name: config_flags.DEFINE_config_dict(name, config, sys_argv=arguments)
      )

  if not asks_for_help(arguments):
    guarded(prepare)
  run_program(_score, "eval", arguments)


def _score() -> None:
  from udh_jax.methods import sweep
  from udh_jax.methods.run import score

  workdir, config, bits = work_directory(), flags.FLAGS.config, code_lengths()
  if sweep.is_sweep(workdir):
    sweep.score_again(workdir, config, bits=bits)
    return
  for length in [config.bits] if bits is None else bits:
    one = config.copy_and_resolve_references()
    one.bits = length
    score(workdir, one)
