"""The program ``python -m udh_jax.search``; its code is in `udh_jax.commands.search`."""

if __name__ != "__main__":
  # As a module it would take the place of the function of that name.
  raise ImportError("udh_jax.search is a function; the program's code is udh_jax.commands.search")

from udh_jax.commands.search import main

main()
