"""Arguments of training that are wrong: one line, in this process."""

import pathlib
import subprocess
import sys

import absl.flags
import pytest

from udh_jax.commands import evaluate, flags, train

QUICKSTART = pathlib.Path(__file__).resolve().parents[2] / "configs" / "quickstart.py"


@pytest.mark.parametrize(
  ("wrong", "words"),
  [
    ("--config.bitz=64", "bitz"),
    ("--config.bits=many", "--config.bits is 'many'; give a whole number."),
    ("--config.bits=0", "bits is 0"),
    ("--config.cluster.num_clusters=0", "num_clusters is 0"),
    ("--config.cluster.num_clusters=1600", "1600, but there are 1497 training images"),
    ("--config.method=magic", "'magic' is unknown"),
    ("--config.teacher.weights=absent.safetensors", "absent.safetensors"),
    ("stray", "stray"),
    ("--wordkir=x", "did you mean --workdir"),
  ],
)
def test_a_wrong_argument_is_refused_in_one_line(tmp_path, failing, wrong, words):
  line = failing(train.main, [f"--config={QUICKSTART}", f"--workdir={tmp_path / 'run'}", wrong])
  assert line.startswith("error: ") and words in line


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize(("program", "own"), [(train, "--seeds"), (evaluate, "--config.score.at")])
def test_help_tells_what_a_program_takes(capsys, flag, program, own):
  program.main([flag])
  said = capsys.readouterr().out
  assert said.startswith(program.__doc__.strip().splitlines()[0])
  assert own in said and "--workdir" in said and "--num_processes" in said


def test_a_flag_or_a_file_that_is_missing_is_named():
  for given, line in (
    ([f"--config={QUICKSTART}"], "--workdir is missing; give it."),
    (
      ["--workdir=x", "--config=configs/quikstart.py"],
      "--config: configs/quikstart.py does not exist; did you mean configs/quickstart.py?",
    ),
  ):
    command = [sys.executable, "train.py", *given]
    root = QUICKSTART.parents[1]
    found = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, f"error: {line}\n")


def test_an_unknown_preset_is_refused_and_the_known_ones_are_named(tmp_path, failing):
  config = QUICKSTART.with_name("udh_ecc.py")
  line = failing(train.main, [f"--config={config}:mnist", f"--workdir={tmp_path}"])
  assert "no preset 'mnist'" in line and "cifar10" in line


@pytest.mark.parametrize(
  "arguments",
  [
    ["--workdir=a"],
    ["--workdir", "a"],
    ["--workdir=a", "--workdir=b"],
    ["--workdir", "a", "-workdir", "b"],
    ["--workdir", "a", "--workdir=b", "--other=c"],
    ["--other", "a"],
  ],
)
def test_a_value_read_ahead_is_the_one_that_absl_takes(arguments):
  known = absl.flags.FlagValues()
  for name in ("workdir", "other"):
    absl.flags.DEFINE_string(name, None, "", flag_values=known)
  known(["program", *arguments])
  assert flags.value_of("workdir", arguments) == known.workdir


def test_eval_takes_the_configuration_of_the_run_that_it_scores(tmp_path, failing):
  missing = tmp_path / "missing"
  arguments = [f"--workdir={tmp_path / 'first'}", f"--workdir={missing}"]
  assert str(missing) in failing(evaluate.main, arguments)
