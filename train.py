"""Trains a hash network: python train.py --config configs/quickstart.py --workdir DIR."""

from udh_jax.commands.main import run_by_name

if __name__ == "__main__":
  run_by_name("train")
