"""Trains a hash network: python train.py --config configs/quickstart.py --workdir DIR.

Several lengths and seeds, and a table of them: --bits=16,32,64 --seeds=0,1,2.
"""

from absl import flags
from ml_collections import config_flags

from udh_jax.commands.huge_pages import use_huge_pages
from udh_jax.errors import require
from udh_jax.methods import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, with its preset.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, scores and pictures.")
_BITS = flags.DEFINE_list("bits", None, "Code lengths to run one after another.")
_SEEDS = flags.DEFINE_list("seeds", None, "Seeds to run one after another.")


def numbers(name: str, texts: list[str] | None, usual: int) -> list[int]:
  """The numbers of a flag, or the configuration's own where it is not given."""
  if texts is None:
    return [usual]
  require(
    all(text.strip().isdigit() for text in texts),
    f"--{name} is {','.join(texts)!r}; give whole numbers, apart by commas.",
  )
  return [int(text) for text in texts]


def main() -> None:
  config = _CONFIG.value
  if _BITS.value is None and _SEEDS.value is None:
    from udh_jax.methods.run import train

    train(config, _WORKDIR.value)
    return
  from udh_jax.methods.sweep import sweep

  bits, seeds = (
    numbers("bits", _BITS.value, config.bits),
    numbers("seeds", _SEEDS.value, config.seed),
  )
  sweep(config, _WORKDIR.value, bits=bits, seeds=seeds)


if __name__ == "__main__":
  use_huge_pages()
  flags.mark_flags_as_required(["config", "workdir"])
  cli.main(main)
