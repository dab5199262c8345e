import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from udh_jax.errors import InputError, TrainingError
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.sharding import split_rows


@pytest.mark.parametrize("num_rows", [1, 7, 8, 9, 225, 1797])
@pytest.mark.parametrize("num_devices", [1, 3, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_batches_cover_every_row_at_the_place_where_it_is_written(
  num_rows, num_devices, batch_size
):
  layout = mesh_lib.RowLayout(num_rows, num_devices)
  batch_size = min(batch_size, layout.rows_per_device)
  found = np.full((num_devices, layout.rows_per_device), -2)
  for step in range(layout.num_batches(batch_size)):
    rows = layout.batch(step, batch_size).reshape(num_devices, batch_size)
    offset = layout.offset(step, batch_size)
    found[:, offset : offset + batch_size] = rows
  expected = np.arange(layout.padded_rows)
  np.testing.assert_array_equal(found.ravel(), np.where(expected < num_rows, expected, -1))


def test_rows_come_back_from_the_devices_as_they_went(mesh, rng):
  array = rng.normal(size=(13, 3)).astype(np.float32)
  sharded = split_rows(mesh, array, fill=-1)
  assert sharded.shape == (16, 3)
  assert {s.data.shape for s in sharded.addressable_shards} == {(2, 3)}
  np.testing.assert_array_equal(mesh_lib.to_host(sharded, 13), array)
  assert (mesh_lib.to_host(sharded)[13:] == -1).all()


def test_a_batch_is_joined_in_device_order(mesh):
  rows = np.arange(24)
  joined = mesh_lib.shard_local(mesh, mesh_lib.local_rows(mesh, rows))
  np.testing.assert_array_equal(np.asarray(joined), rows)


def test_replicated_copies_can_be_donated(mesh):
  source = np.arange(4.0)
  copy = mesh_lib.replicate(mesh, {"a": source})["a"]
  jax.jit(lambda x: x + 1, donate_argnums=0)(copy)
  np.testing.assert_array_equal(source, np.arange(4.0))


def test_half_of_the_process_flags_is_refused():
  with pytest.raises(InputError, match="go together"):
    mesh_lib.initialize(coordinator="127.0.0.1:1")


def test_other_processes_that_are_gone_are_one_line(monkeypatch):
  said = "UNKNOWN: Gloo context initialization failed: DEADLINE_EXCEEDED\nand more"
  with pytest.raises(jax.errors.JaxRuntimeError), mesh_lib.reachable():  # of one process: no news
    raise jax.errors.JaxRuntimeError(said)
  monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
  line = r"^Another process of this run .*Gloo.*\.$"
  with pytest.raises(TrainingError, match=line), mesh_lib.reachable():
    raise jax.errors.JaxRuntimeError(said)
  with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"), mesh_lib.reachable():
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


def test_what_process_0_does_alone_is_done_and_its_answer_comes_back():
  done = []
  assert mesh_lib.on_main("write", lambda: done.append(1) or "written") == "written"
  assert done == [1]
  mesh_lib.barrier("after")


@pytest.mark.parametrize(
  "together",
  [
    lambda mesh: mesh_lib.barrier("here"),
    lambda mesh: mesh_lib.agreed(3),
    lambda mesh: mesh_lib.to_host(split_rows(mesh, np.arange(3))),
    lambda mesh: mesh_lib.on_main("inner", lambda: None),
  ],
  ids=["barrier", "agreed", "to_host", "on_main"],
)
def test_what_all_do_together_is_refused_where_process_0_is_alone(mesh, together):
  with pytest.raises(RuntimeError, match=r"within 'drawing': all processes"):
    mesh_lib.on_main("drawing", lambda: together(mesh))
  together(mesh)  # and not for ever after


_FAILING = """
import sys
from udh_jax.errors import InputError
from udh_jax.runtime import mesh

mesh.initialize(coordinator=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))

def fail():
  raise OSError("disk full")

try:
  mesh.on_main("write the table", fail)
except (InputError, OSError) as error:
  print(error)
print(mesh.on_main("go on", lambda: 5))
mesh.require_same("The data", "the same")
try:
  mesh.require_same("The configuration", f"bits {sys.argv[2]}")
except InputError as error:
  print(error)
"""


@pytest.mark.slow
def test_what_fails_in_process_0_is_told_in_all(tmp_path):
  with socket.socket() as free:
    free.bind(("localhost", 0))
    place = f"localhost:{free.getsockname()[1]}"
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", _FAILING, place, str(number)], stdout=subprocess.PIPE, text=True
    )
    for number in range(2)
  ]
  said = [process.communicate(timeout=120)[0].splitlines()[-3:] for process in processes]
  differs = (
    "The configuration of process 1 differs from that of process 0; start all processes with the "
    "same command, on the same data."
  )
  assert said == [
    ["disk full", "5", differs],
    ["write the table failed in process 0, which says why.", "None", differs],
  ]


@pytest.mark.parametrize("own", ["", "a", "/a/longer/päth/than/that", "/p\udce4th"])
def test_a_text_of_process_0_reaches_those_whose_own_is_of_another_length(own, monkeypatch):
  """As process 1 of two; what process 0 sends has its shape."""
  sent = "/päth/of/0".encode()
  sends = iter([np.int32(len(sent)), np.frombuffer(sent, np.uint8)])

  def broadcast(value):
    held = next(sends)
    assert np.shape(value) == np.shape(held)
    return held

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(mesh_lib.multihost_utils, "broadcast_one_to_all", broadcast)
  assert mesh_lib.text_from_main(own) == "/päth/of/0"


def test_a_text_of_the_only_process_is_its_own():
  for text in ("/päth", "", "/p\udce4th"):  # the last a name that is not UTF-8
    assert mesh_lib.text_from_main(text) == text
