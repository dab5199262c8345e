"""The program ``python -m udh_jax.encode``; its code is in `udh_jax.commands.encode`."""

from udh_jax.commands.encode import main

if __name__ == "__main__":
  main()
