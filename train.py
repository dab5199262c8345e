"""Trains a hash network: python train.py --config configs/quickstart.py --workdir DIR."""

from udh_jax.commands.huge_pages import use_huge_pages
from udh_jax.commands.train import main

if __name__ == "__main__":
  use_huge_pages()
  main()
