"""Trains a hash network: udh-jax train --config configs/quickstart.py --workdir DIR.

Several lengths and seeds, and a table of them: --bits=16,32,64 --seeds=0,1,2.
"""

import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from udh_jax.commands.flags import (
  code_lengths,
  numbers,
  replace_config_flag,
  run_program,
  work_directory,
)

_SEEDS = flags.DEFINE_list("seeds", None, "Seeds to run one after another.")


def _train() -> None:
  config = flags.FLAGS.config
  bits, seeds = code_lengths(), numbers("seeds", _SEEDS.value)
  if bits is None and seeds is None:
    from udh_jax.methods.run import train

    train(config, work_directory())
    return
  from udh_jax.methods.sweep import sweep

  bits = [config.bits] if bits is None else bits
  seeds = [config.seed] if seeds is None else seeds
  sweep(config, work_directory(), bits=bits, seeds=seeds)


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  arguments = sys.argv[1:] if arguments is None else list(arguments)
  replace_config_flag(
    lambda name: config_flags.DEFINE_config_file(
      name, None, "Configuration file, with its preset.", sys_argv=arguments
    )
  )
  flags.mark_flags_as_required(["config", "workdir"])
  run_program(_train, "train", arguments)
