"""``python -m udh_jax PROGRAM``: the same as ``udh-jax PROGRAM``."""

from udh_jax.commands.main import program

if __name__ == "__main__":
  program()
