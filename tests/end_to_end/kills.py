"""kill -9 at random moments of a training, an encoding and an update of an index.

python tests/end_to_end/kills.py FOLDER [KILLS] [SEED]

Each program is first left alone, then started and killed again and again: between two kills it goes
on where it was, and once it has come to its end it starts from nothing. After every kill all that
lies there is read; at every end it is compared with what was left alone, bit by bit.
"""

import collections
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from udh_jax.encoders.loading import load_encoder  # noqa: E402
from udh_jax.retrieval.index import HammingIndex  # noqa: E402
from udh_jax.runtime import checkpoint  # noqa: E402

CONFIGURATION = """
from udh_jax.methods import udh_ecc

def get_config():
  config = udh_ecc.default_config("folder", image_size=8, num_queries=10)
  config.update(rounds=1, bits=8, checkpoint_every=2)
  config.teacher.update(backbone="small_convnet", weights="", image_size=8)
  config.student.update(backbone="small_convnet", image_size=8)
  config.features.update(image_sizes=(8,), batch_size=8)
  config.soft_labels.batch_size = config.encode.batch_size = 8
  config.cluster.update(num_clusters=4, num_restarts=1, max_iterations=12)
  config.pretrain.update(steps=8, batch_size=8)
  config.finetune.update(steps=8, batch_size=8)
  config.distill.update(steps=8, batch_size=8)
  config.score.at = 0
  return config
"""
# The program as it is, but that encoding saves at every batch and not each half minute.
PROGRAM = """
from udh_jax.commands.main import program
from udh_jax.encoders import folder
folder.SAVE_EVERY = 0
program()
"""
NUM_TRAINED, NUM_ENCODED, NUM_CHANGED = 40, 3000, 1000
SHARES = {"train": 0.4, "encode": 0.3, "update": 0.3}  # of the kills


def make_pictures(folder: pathlib.Path, numbers, seed: int) -> None:
  """Noisy red and blue pictures in two class folders."""
  rng = np.random.default_rng(seed)
  for number in numbers:
    path = folder / ("red", "blue")[number % 2] / f"{number:05}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    color = ((200, 30, 30), (30, 30, 200))[number % 2]
    noise = rng.integers(-90, 90, (12, 10, 3)) + color
    Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(path)


def start(folder: pathlib.Path, *arguments) -> subprocess.Popen:
  """Starts a program; what it prints goes to ``FOLDER/log.txt``."""
  environment = os.environ | {
    "PYTHONPATH": str(ROOT),
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "",
    "JAX_COMPILATION_CACHE_DIR": str(folder / "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  with (folder / "log.txt").open("a") as log:
    return subprocess.Popen(
      [sys.executable, "-c", PROGRAM, *map(str, arguments)],
      stdout=log,
      stderr=log,
      cwd=folder,
      env=environment,
      start_new_session=True,
    )


def kill(process: subprocess.Popen) -> None:
  """kill -9 of a program and all that it has started."""
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()


def index_contents(path: pathlib.Path) -> dict:
  """All that an index says, by name of its pictures, whatever the order of its items."""
  index = HammingIndex.load(path)
  order = sorted(range(len(index)), key=lambda item: index.names[item])
  columns = {name: np.asarray(column)[order] for name, column in index.columns.items()}
  return {
    "names": [index.names[item] for item in order],
    "codes": np.asarray(index.codes)[order].tobytes(),
    "about": index.about,
    **{name: column.tobytes() for name, column in columns.items()},
  }


def require_readable(folder: pathlib.Path) -> int:
  """Reads all that a killed program has left where it ends up; returns how many files."""
  count = 0
  for path in folder.rglob("*"):
    if path.name.endswith(".tmp") or ".orbax-checkpoint-tmp" in str(path) or not path.is_file():
      continue
    if path.suffix == ".json":
      record = json.loads(path.read_text())
      if isinstance(record, dict) and "checksums" in record:
        fault = checkpoint.fault(path.with_suffix(""))
        assert fault is None, f"{path.with_suffix('')} {fault}"
      if path.parent.name.startswith("encoder_"):
        load_encoder(path.parent)
    elif path.suffix == ".png":
      with Image.open(path) as picture:
        picture.load()
    elif path.suffix in (".index", ".partial"):
      index_contents(path)
    count += 1
  return count


def leavings(folder: pathlib.Path) -> list[str]:
  """Temporary files and folders."""
  signs = (".tmp", ".partial", "orbax-checkpoint-tmp")
  return [str(path) for path in folder.rglob("*") if any(sign in path.name for sign in signs)]


def outputs(folder: pathlib.Path) -> dict:
  """What a finished program has made, to compare: contents by relative path.

  Left out: events and progress (they tell times and stops) and what tells of them in the report.
  Checkpoints are compared by their arrays.
  """
  found = {}
  for path in sorted(p for p in folder.rglob("*") if p.is_file()):
    name = path.relative_to(folder).as_posix()
    if path.suffix == ".index":
      found[name] = index_contents(path)
    elif name.startswith("stages/"):
      if path.name == "stage.json":
        found[name] = path.read_bytes()
    elif not name.startswith("events/") and path.suffix != ".html":
      found[name] = path.read_bytes()
  for record in sorted(folder.glob("stages/*/output.json")):
    found[record.parent.name] = arrays_of(record.with_suffix(""))
  return found


def arrays_of(folder: pathlib.Path) -> dict:
  """All arrays of a checkpoint, by name."""
  import jax

  from udh_jax.runtime import mesh as mesh_lib

  tree = checkpoint.load(folder, num_rows=NUM_TRAINED, mesh=mesh_lib.make_mesh(jax.devices()[:1]))
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}


class Job:
  """One of the programs, with what it begins with and what it has to end with."""

  def __init__(self, name: str, folder: pathlib.Path, place: pathlib.Path, arguments):
    self.name, self._folder, self.place, self._arguments = name, folder, place, arguments
    self._before = folder / f"before_{name}"
    if place.exists():
      shutil.copytree(place, self._before)
    started = time.monotonic()
    assert self.start().wait() == 0, (folder / "log.txt").read_text()[-3000:]
    started = time.monotonic()  # again, with all compiled
    self.begin_anew()
    assert self.start().wait() == 0, (folder / "log.txt").read_text()[-3000:]
    self.seconds = time.monotonic() - started
    self.expected = outputs(place)
    assert self.expected and not leavings(place), leavings(place)

  def start(self) -> subprocess.Popen:
    return start(self._folder, *self._arguments)

  def begin_anew(self) -> None:
    shutil.rmtree(self.place)
    if self._before.exists():
      shutil.copytree(self._before, self.place)
    else:
      self.place.mkdir()

  def require_same(self) -> None:
    """The end is that of the program that was left alone."""
    found = outputs(self.place)
    assert found.keys() == self.expected.keys(), found.keys() ^ self.expected.keys()
    differing = [name for name in found if found[name] != self.expected[name]]
    assert not differing, f"{self.name}: {differing} differ"
    assert not leavings(self.place), leavings(self.place)

  def torment(self, kills: int, draw: random.Random) -> collections.Counter:
    """Kills it so many times, and counts what came of it."""
    counts = collections.Counter()
    self.begin_anew()
    while counts["kills"] < kills:
      process = self.start()
      try:
        status = process.wait(draw.uniform(0, self.seconds))
      except subprocess.TimeoutExpired:
        kill(process)
        counts["kills"] += 1
        counts["files read"] += require_readable(self.place)
        continue
      assert status == 0, (self._folder / "log.txt").read_text()[-3000:]
      self.require_same()
      counts["ends"] += 1
      self.begin_anew()
    assert self.start().wait() == 0, (self._folder / "log.txt").read_text()[-3000:]
    self.require_same()
    counts["ends"] += 1
    return counts


def run(folder: pathlib.Path, kills: int, seed: int) -> dict[str, collections.Counter]:
  """All three programs; returns what was counted, by program."""
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "small.py").write_text(CONFIGURATION)
  make_pictures(folder / "trained", range(NUM_TRAINED), 0)
  make_pictures(folder / "pictures", range(NUM_ENCODED), 1)
  draw, counted = random.Random(seed), {}

  def job(name, place, *arguments):
    made = Job(name, folder, place, arguments)
    counted[name] = made.torment(max(1, round(SHARES[name] * kills)), draw)
    words = ", ".join(f"{count} {what}" for what, count in counted[name].items())
    print(f"{name}: {words}; {made.seconds:.0f} s undisturbed; the same at every end", flush=True)

  (folder / "index").mkdir()
  job(
    "train",
    folder / "run",
    "train",
    f"--config={folder / 'small.py'}",
    f"--config.data.path={folder / 'trained'}",
    f"--workdir={folder / 'run'}",
  )
  encode = ("encode", "--output", folder / "index" / "of.index")
  job(
    "encode",
    folder / "index",
    *encode,
    *("--encoder", folder / "run", "--images", folder / "pictures"),
  )
  for number in range(0, NUM_CHANGED, 3):
    (folder / "pictures" / ("red", "blue")[number % 2] / f"{number:05}.png").unlink()
  make_pictures(folder / "pictures", range(1, NUM_CHANGED, 3), 2)  # others of the same names
  make_pictures(folder / "pictures", range(NUM_ENCODED, NUM_ENCODED + NUM_CHANGED), 3)
  job("update", folder / "index", *encode, "--update")
  return counted


if __name__ == "__main__":
  place, *numbers = sys.argv[1:]
  run(pathlib.Path(place).resolve(), *(list(map(int, numbers)) + [100, 0][len(numbers) :]))
