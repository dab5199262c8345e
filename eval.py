"""Scores a finished run without training: python eval.py --workdir DIR [--config.score.at=0]."""

from udh_jax.commands.evaluate import main
from udh_jax.commands.huge_pages import use_huge_pages

if __name__ == "__main__":
  use_huge_pages()
  main()
