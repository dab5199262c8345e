"""Scores a finished run without training: python eval.py --workdir DIR [--config.score.at=0]."""

from udh_jax.commands.main import program

if __name__ == "__main__":
  program("eval")
