"""The program ``python -m udh_jax.encode``; its code is in `udh_jax.commands.encode`."""

from udh_jax.commands.encode import main
from udh_jax.commands.huge_pages import use_huge_pages

if __name__ == "__main__":
  use_huge_pages()
  main()
