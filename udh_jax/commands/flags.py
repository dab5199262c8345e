"""What the programs ``train`` and ``eval`` share: flags, and errors in one line."""

import difflib
import glob
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

from absl import app, flags, logging
from ml_collections import ConfigDict

from udh_jax.commands.ending import fail, guarded
from udh_jax.configuration import field_names, unknown_field
from udh_jax.errors import InputError, require
from udh_jax.machine import keep_compiled
from udh_jax.runtime import mesh as mesh_lib

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run: checkpoints, scores, pictures.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0 of several.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Number of processes.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Number of this process, from 0.")
_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Find the other processes automatically (TPU pods, Slurm, Open MPI)."
)
_BITS = flags.DEFINE_list("bits", None, "Code lengths, one after another, such as 16,32,64.")


def code_lengths() -> list[int] | None:
  """The lengths of ``--bits``; None where it is not given."""
  return numbers("bits", _BITS.value)


def numbers(name: str, texts: list[str] | None) -> list[int] | None:
  """The numbers of a flag of several; None where it is not given.

  Raises:
    InputError: If one is none.
  """
  if texts is None:
    return None
  require(
    all(text.strip().isdecimal() for text in texts),
    f"--{name} is {','.join(texts)!r}; give comma-separated whole numbers.",
  )
  return [int(text) for text in texts]


def work_directory() -> str:
  """The folder of the run; the flag is required."""
  assert _WORKDIR.value is not None
  return _WORKDIR.value


def replace_config_flag(define: Callable[[str], object]) -> None:
  """Defines ``--config`` by ``define``, in place of another program's in this process."""
  for name in [n for n in flags.FLAGS if n == "config" or n.startswith("config.")]:
    delattr(flags.FLAGS, name)
  define("config")


def parse(arguments: Sequence[str]) -> list[str]:
  """Parses flags; a wrong one is refused in one line, whichever library notices it."""
  path = (value_of("config", arguments) or "").partition(":")[0]
  if path and not os.path.exists(path):  # which ml_collections tells when it is first read
    beside = glob.glob(os.path.join(os.path.dirname(path), "*.py"))
    near = difflib.get_close_matches(path, beside, 1)
    fail(f"--config: {path} does not exist" + (f"; did you mean {near[0]}?" if near else "."))
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
    fail(_reason(error, arguments))


# What absl and ml_collections say of a value, and what is to be done about it.
_WORDS = {
  r"flag --(\w+)=None: Flag --\w+ must have a value other than None\.": "--{} is missing; give it.",
  r"flag --(\S+?)=(.*): invalid literal for int\(\) .*": "--{} is {!r}; give a whole number.",
  r"flag --(\S+?)=(.*): could not convert string to float.*": "--{} is {!r}; give a number.",
}


def _reason(error: BaseException, arguments: Sequence[str]) -> str:
  """What is wrong with the flags, in one line."""
  text = str(error).strip()
  if "Traceback" in text:  # ml_collections puts that of the configuration file into its message
    text = text.splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
  if isinstance(error, KeyError | AttributeError | flags.UnrecognizedFlagError):
    known = field_names(_config_of(arguments))
    unknown = [field for field in fields_in(arguments) if known and field not in known]
    if unknown:
      return unknown_field(unknown[0], known)
  for pattern, words in _WORDS.items():
    if match := re.fullmatch(pattern, text, re.DOTALL):
      return words.format(*match.groups())
  if isinstance(error, flags.UnrecognizedFlagError):
    near = difflib.get_close_matches(error.flagname, list(flags.FLAGS), 1)
    text = f"unknown flag --{error.flagname}" + (f"; did you mean --{near[0]}?" if near else ".")
  return text


def _config_of(arguments: Sequence[str]) -> ConfigDict:
  """The configuration that flags were to change, as its file makes it; empty if it cannot."""
  if isinstance(flags.FLAGS["config"].value, ConfigDict):
    return flags.FLAGS["config"].value
  path, _, preset = (value_of("config", arguments) or "").partition(":")
  try:
    spec = importlib.util.spec_from_file_location("configuration_file", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(preset) if preset else module.get_config()
  except Exception:  # whatever a file of the user's raises: its own error is shown
    return ConfigDict()


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
  """The value of a flag among arguments that are not parsed yet: its last one, as absl takes it."""
  found = None
  for position, argument in enumerate(arguments):
    name, equals, value = argument.lstrip("-").partition("=")
    if argument.startswith("-") and name == flag:
      found = value if equals else (*arguments[position + 1 : position + 2], None)[0]
  return found


def fields_in(arguments: Iterable[str]) -> list[str]:
  """Dotted fields of the configuration that the arguments set."""
  matches = (re.match(r"--?config\.([^=]+)", argument) for argument in arguments)
  return [match[1] for match in matches if match]


def asks_for_help(arguments: Iterable[str]) -> bool:
  """Whether a program is only to say what it takes."""
  return not {"-h", "--help"}.isdisjoint(arguments)


def _print_help(module: ModuleType) -> None:
  """Prints what a program is for, and its flags; absl prints those of the main module alone."""
  own = (flags.FLAGS.module_help(each) for each in (module.__name__, __name__))
  options = "\n".join(text.strip().partition("\n")[2] for text in own if text)
  fields = "  --config.FIELD: Any field of the configuration, such as --config.bits=64."
  print(f"{(module.__doc__ or '').strip()}\n\nOptions:\n{options}\n{fields}")


def run_program(
  run: Callable[[], object], name: str, arguments: Sequence[str] | None = None
) -> None:
  """Parses flags, joins the other processes and calls ``run``.

  Args:
    run: The program; `InputError` and `TrainingError` end it with one line and status 2.
    name: Of the program, for its help.
    arguments: Of the command line; None is `sys.argv`'s.
  """
  given = sys.argv[1:] if arguments is None else list(arguments)
  if asks_for_help(given):
    _print_help(sys.modules[run.__module__])
    return

  def checked(rest):
    if len(rest) > 1:
      fail(f"unknown arguments {' '.join(rest[1:])}; options begin with --.")
    if not any(argument.startswith(("--verbosity", "-v")) for argument in given):
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
    keep_compiled()
    with mesh_lib.reachable():
      run()

  app.run(checked, argv=[f"udh-jax {name}", *given], flags_parser=parse)
