"""What ``train.py`` and ``eval.py`` share: flags, and errors in one line."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from udh_jax.commands.ending import fail, guarded
from udh_jax.errors import InputError
from udh_jax.runtime import mesh as mesh_lib

_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0 of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Find the other processes by oneself (TPU pods, Slurm, Open MPI)."
)


def parse(arguments: Sequence[str]) -> list[str]:
  """Parses flags; a wrong one is refused in one line, whichever library notices it."""
  try:
    return flags.FLAGS(arguments)
  except (
    flags.Error,
    InputError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    OSError,
  ) as error:
    text = str(error).strip()
    if "Traceback" in text:  # ml_collections puts that of the configuration file into its message
      text = text.splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
    return fail(text)


def main(run: Callable[[], None]) -> None:
  """Parses flags, joins the other processes and calls ``run``.

  Args:
    run: The program; `InputError` and `TrainingError` end it with one line and status 2.
  """

  def checked(arguments):
    if len(arguments) > 1:
      fail(f"unknown arguments {' '.join(arguments[1:])}; options begin with --.")
    if not any(argument.startswith(("--verbosity", "-v")) for argument in sys.argv):
      logging.set_verbosity(logging.WARNING)  # JAX and Orbax tell much that no user asked for
      # So does TensorFlow, which writes events here and computes nothing, when it is imported.
      os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
      os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    guarded(join_and_run)

  def join_and_run():
    mesh_lib.initialize(
      auto=_DISTRIBUTED.value,
      coordinator=_COORDINATOR.value,
      num_processes=_NUM_PROCESSES.value,
      process_id=_PROCESS_ID.value,
    )
    run()

  app.run(checked, flags_parser=parse)
