"""What pyproject.toml promises: one list of requirements, one version, a light import."""

import pathlib
import re
import subprocess
import sys
import tomllib

import udh_jax

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _expanded(requirements):
  """Requirements of an extra with those of the extras that it names."""
  extras = PROJECT["project"]["optional-dependencies"]
  for requirement in requirements:
    own = re.fullmatch(r"udh_jax\[(.+)\]", requirement)
    if own:
      yield from _expanded(item for name in own[1].split(",") for item in extras[name])
    else:
      yield requirement


def test_requirements_are_the_core_and_the_extra_all():
  lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").open())
  promised = [*PROJECT["project"]["dependencies"], *_expanded(["udh_jax[all]"])]
  assert [line for line in lines if line] == promised


def test_every_extra_names_only_extras_that_exist():
  for requirements in PROJECT["project"]["optional-dependencies"].values():
    assert all("udh_jax" not in requirement for requirement in _expanded(requirements))


def test_ruff_is_the_same_in_ci_and_before_a_commit():
  hooks = (ROOT / ".pre-commit-config.yaml").read_text()
  pinned = re.search(r"repo: \S+/ruff-pre-commit\s+rev: v(\S+)", hooks)[1]
  assert f"ruff=={pinned}" in PROJECT["project"]["optional-dependencies"]["test"]


def test_the_newest_entry_of_the_changelog_is_the_version():
  newest = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.M)[1]
  assert newest == udh_jax.__version__
  citation = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.M)[1]
  assert citation == udh_jax.__version__


def test_import_is_light():
  code = "import sys, udh_jax; print(*{name.partition('.')[0] for name in sys.modules})"
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
  )
  heavy = {"faiss", "h5py", "matplotlib", "ml_collections", "numba", "sklearn", "tensorflow"}
  assert not heavy & set(done.stdout.split())
