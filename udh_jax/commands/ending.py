"""How programs end: with one line for people, and a status for scripts."""

import sys
from collections.abc import Callable

from udh_jax.errors import InputError, TrainingError


def fail(error: BaseException | str) -> None:
  """Prints one line and leaves with status 2."""
  text = " ".join(str(error).split())
  print(f"error: {text}", file=sys.stderr, flush=True)
  sys.exit(2)


def guarded(run: Callable[[], None]) -> None:
  """Calls ``run``; `InputError` and `TrainingError` end the program with one line."""
  try:
    run()
  except (InputError, TrainingError) as error:
    fail(error)
  except BrokenPipeError:  # the reader of our output went away, as head does
    sys.stderr.close()
    sys.exit(0)
