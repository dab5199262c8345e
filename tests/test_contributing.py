"""The additions that CONTRIBUTING.md shows work as they stand there, in a copy of the package."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
REGISTRIES = {
  "udh_jax/data/registry.py": "READERS: dict",
  "udh_jax/losses/registry.py": "POINT_WISE: dict",
}


def blocks():
  """Path and text of each file, and of each addition to one, that the page shows."""
  return re.findall(
    r'^```python title="(\S+)"\n(.*?)^```$', (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S
  )


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
  """A copy of the project's code with the page's additions."""
  folder = tmp_path_factory.mktemp("project")
  for part in ("udh_jax", "configs"):
    shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
  for path, text in blocks():
    file = folder / path
    if path not in REGISTRIES:
      assert not file.exists(), f"{path} is an example's name"
      file.write_text(text)
      continue
    imported, entry = text.strip().split("\n\n")
    before, start, after = file.read_text().partition(f"\n{REGISTRIES[path]}")
    line, _, rest = after.partition("\n")
    assert line.endswith("{")
    file.write_text(f"{before}\n{imported}\n{start}{line}\n{entry}\n{rest}")
  return folder


def run(folder, *arguments):
  done = subprocess.run(
    [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


PROGRAM = """
import numpy as np
from udh_jax.data.registry import data_config, load_dataset
from udh_jax.losses.hinge import hinge_loss
from udh_jax.methods import dhih
from udh_jax.methods.registry import make_plan

config = data_config("stripes")
dataset = load_dataset(config)
assert dataset.images[0].shape == (8, 8, 3)
assert dataset.protocol.startswith("stripes: 8 queries, 72 database")
config.stripes = 3
assert (load_dataset(config).images[5] != dataset.images[5]).any()

config = dhih.default_config("stripes", method="hinge")
assert config.loss.margin == 1 and make_plan(config).title == "Hinge"
rng = np.random.default_rng(0)
outputs, classes = (rng.normal(size=(n, 4)).astype(np.float32) for n in (6, 3))
labels = np.array([0, 1, 2, 1, -1, 0])
expected = []
for u, label in zip(outputs, labels):
  if label >= 0:
    scores = classes @ u
    expected.append(max(0, 1 + np.delete(scores, label).max() - scores[label]))
assert any(value > 0 for value in expected)
loss = hinge_loss(outputs, classes, labels, margin=1)
np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
"""


def test_a_data_set_and_a_loss_are_one_file_and_one_line_each(copy):
  shown = [path for path, _ in blocks()]
  assert len(shown) == 4 and set(REGISTRIES) < set(shown)
  run(copy, "-c", PROGRAM)
