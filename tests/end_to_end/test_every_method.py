"""Every method to its end on one device, on eight, and in two processes of two: the same scores."""

import json
import pathlib
import socket
import subprocess
import sys
import time

import all_methods
import pytest
from command import environment

pytestmark = pytest.mark.slow

PROGRAM = pathlib.Path(all_methods.__file__)
PATIENCE = 900  # seconds; a run in which one process waits for another ends here


def start(folder: pathlib.Path, *process: str, devices: int) -> subprocess.Popen:
  variables = environment(devices)
  variables["XLA_FLAGS"] += " --xla_backend_optimization_level=0"
  variables["XDG_CACHE_HOME"] = str(folder / "cache")
  log = folder / f"log_{'_'.join(process[-1:]) or devices}.txt"
  with log.open("w") as output:
    return subprocess.Popen(
      [sys.executable, str(PROGRAM), str(folder), *process],
      stdout=output,
      stderr=subprocess.STDOUT,
      env=variables,
    )


def ended(folder: pathlib.Path, processes: list[subprocess.Popen]) -> None:
  """Waits until all have ended well; if one does not, ends all and shows what they printed."""
  latest = time.monotonic() + PATIENCE
  codes = [None] * len(processes)
  while None in codes and not any(codes) and time.monotonic() < latest:
    time.sleep(0.2)
    codes = [process.poll() for process in processes]
  for process in processes:
    process.kill()
  logs = [
    f"== {path.name}\n" + "\n".join(path.read_text().splitlines()[-40:])
    for path in sorted(folder.glob("log_*.txt"))
  ]
  assert set(codes) == {0}, "\n".join([f"statuses {codes}; None was still at work", *logs])


def scores(folder: pathlib.Path, processes: int, devices: int) -> dict[str, dict[str, float]]:
  path = folder / f"{processes}_processes_{devices}_devices" / "scores.json"
  return json.loads(path.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The data, and the scores of one device."""
  folder = tmp_path_factory.mktemp("methods")
  all_methods.made_data(folder)
  ended(folder, [start(folder, devices=1)])
  return folder


def compare(folder, processes, devices):
  ours, reference = scores(folder, processes, devices), scores(folder, 1, 1)
  assert ours.keys() == reference.keys() == all_methods.configurations(folder).keys()
  for method, rows in reference.items():
    assert rows and ours[method].keys() == rows.keys(), method
    for row, value in rows.items():
      assert abs(ours[method][row] - value) < 0.01, (method, row)


def test_every_method_ends_on_eight_devices(folder):
  ended(folder, [start(folder, devices=8)])
  compare(folder, 1, 8)


def test_every_method_ends_in_two_processes_of_two_devices(folder):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  ended(folder, [start(folder, address, "2", str(i), devices=2) for i in range(2)])
  compare(folder, 2, 4)
  # What only process 0 draws, from what both have read.
  assert (folder / "2_processes_4_devices" / "psch" / "attention.png").exists()
