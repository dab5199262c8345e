"""Trains a hash network: python train.py --config configs/quickstart.py --workdir DIR."""

from udh_jax.commands.main import program

if __name__ == "__main__":
  program("train")
