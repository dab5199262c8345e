"""Trains a hash network: python train.py --config configs/quickstart.py --workdir DIR."""

from absl import flags
from ml_collections import config_flags

from udh_jax.methods import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, with its preset.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, scores and pictures.")


def main() -> None:
  from udh_jax.methods.run import train

  train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  cli.main(main)
