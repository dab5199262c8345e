"""Trains a hash network: udh-jax train --config configs/quickstart.py --workdir DIR.

Several lengths and seeds, and a table of them: --bits=16,32,64 --seeds=0,1,2.
"""

import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from udh_jax.commands.flags import replace_config_flag, run_program, work_directory
from udh_jax.errors import require

_BITS = flags.DEFINE_list("bits", None, "Code lengths to run one after another.")
_SEEDS = flags.DEFINE_list("seeds", None, "Seeds to run one after another.")


def numbers(name: str, texts: list[str] | None, usual: int) -> list[int]:
  """The numbers of a flag, or the configuration's own where it is not given."""
  if texts is None:
    return [usual]
  require(
    all(text.strip().isdecimal() for text in texts),
    f"--{name} is {','.join(texts)!r}; give comma-separated whole numbers.",
  )
  return [int(text) for text in texts]


def _train() -> None:
  config = flags.FLAGS.config
  if _BITS.value is None and _SEEDS.value is None:
    from udh_jax.methods.run import train

    train(config, work_directory())
    return
  from udh_jax.methods.sweep import sweep

  bits = numbers("bits", _BITS.value, config.bits)
  seeds = numbers("seeds", _SEEDS.value, config.seed)
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
