import functools
import logging
import pathlib
import resource

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.runtime import checkpoint
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.sharding import split_rows


def tree_on(mesh, rows):
  return {
    "features": split_rows(mesh, rows),
    "variables": mesh_lib.replicate(mesh, {"layer": {"kernel": np.arange(6.0).reshape(2, 3)}}),
  }


def damage(folder: pathlib.Path) -> None:
  """Changes one byte in the middle of the largest file."""
  path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 255
  path.write_bytes(data)


@pytest.mark.parametrize("after", ["eight", "one"])
def test_a_tree_comes_back_on_any_number_of_devices(tmp_path, mesh, rng, after):
  rows = rng.normal(size=(13, 2)).astype(np.float32)
  checkpoint.save(tmp_path / "x", tree_on(mesh, rows), row_keys=("features",), mesh=mesh)
  target = mesh if after == "eight" else mesh_lib.make_mesh(jax.devices()[:1])
  found = checkpoint.load(tmp_path / "x", num_rows=13, mesh=target)
  assert found["features"].shape == ((16, 2) if after == "eight" else (13, 2))
  np.testing.assert_array_equal(mesh_lib.to_host(found["features"], 13), rows)
  kernel = found["variables"]["layer"]["kernel"]
  np.testing.assert_array_equal(kernel, np.arange(6.0).reshape(2, 3))
  assert kernel.sharding.is_fully_replicated


def test_more_devices_than_before_pad_further(tmp_path, mesh, rng):
  rows = rng.normal(size=(13, 2)).astype(np.float32)
  single = mesh_lib.make_mesh(jax.devices()[:1])
  checkpoint.save(tmp_path / "x", tree_on(single, rows), row_keys=("features",), mesh=single)
  found = checkpoint.load(tmp_path / "x", num_rows=13, mesh=mesh)["features"]
  np.testing.assert_array_equal(mesh_lib.to_host(found, 13), rows)


def test_a_folder_without_its_record_does_not_count(tmp_path, mesh, rng):
  tree = tree_on(mesh, rng.normal(size=(13, 2)))
  checkpoint.save(tmp_path / "x", tree, row_keys=("features",), mesh=mesh)
  assert checkpoint.fault(tmp_path / "x") is None
  (tmp_path / "x.json").unlink()
  assert checkpoint.fault(tmp_path / "x") == "was not finished"


def test_one_changed_byte_is_noticed(tmp_path, mesh, rng):
  tree = tree_on(mesh, rng.normal(size=(13, 2)))
  checkpoint.save(tmp_path / "x", tree, row_keys=("features",), mesh=mesh)
  damage(tmp_path / "x")
  assert checkpoint.fault(tmp_path / "x") == "is damaged"


def test_a_damaged_save_is_named_and_the_one_before_it_is_used(tmp_path, mesh, caplog):
  progress = checkpoint.Progress(tmp_path, num_rows=13, mesh=mesh)
  for step in (1, 2, 3):
    state = mesh_lib.replicate(mesh, {"x": np.full(100, float(step))})
    progress.save(step, state, row_keys=())
  assert not (tmp_path / "1").exists(), "only the newest two are kept"
  damage(tmp_path / "3")
  with caplog.at_level(logging.WARNING):
    step, state = progress.restore({"x": jnp.zeros(100)})
  assert step == 2
  assert float(state["x"][0]) == 2.0
  assert str(tmp_path / "3") in caplog.text


def test_nothing_saved_gives_the_first_state(tmp_path, mesh):
  start = {"x": jnp.zeros(3)}
  assert checkpoint.Progress(tmp_path, num_rows=3, mesh=mesh).restore(start) == (0, start)


def test_half_finished_rows_are_not_taken_up_on_other_devices(tmp_path, mesh, rng):
  rows = {"rows": {"features": split_rows(mesh, rng.normal(size=(13, 2)))}}
  checkpoint.Progress(tmp_path, num_rows=13, mesh=mesh).save(1, rows, row_keys=("rows",))
  single = mesh_lib.make_mesh(jax.devices()[:1])
  start = {"rows": {"features": split_rows(single, np.zeros((13, 2)))}}
  progress = checkpoint.Progress(tmp_path, num_rows=13, mesh=single, by_block=True)
  step, state = progress.restore(start)
  assert step == 0
  assert state is start


def test_rows_of_all_are_taken_up_on_other_devices(tmp_path, mesh, rng):
  values = rng.normal(size=(13, 2)).astype(np.float32)
  rows = {"rows": {"features": split_rows(mesh, values)}}
  checkpoint.Progress(tmp_path, num_rows=13, mesh=mesh).save(1, rows, row_keys=("rows",))
  for devices in (1, 4):
    other = mesh_lib.make_mesh(jax.devices()[:devices])
    start = {"rows": {"features": split_rows(other, np.zeros((13, 2), np.float32))}}
    step, state = checkpoint.Progress(tmp_path, num_rows=13, mesh=other).restore(start)
    assert step == 1
    found = state["rows"]["features"]
    assert found.shape == start["rows"]["features"].shape
    assert found.sharding == start["rows"]["features"].sharding
    np.testing.assert_array_equal(mesh_lib.to_host(found, 13), values)


def test_saves_of_other_devices_do_not_push_out_new_ones(tmp_path, mesh, rng):
  def rows(mesh):
    return {"rows": {"features": split_rows(mesh, rng.normal(size=(13, 2)))}}

  progress = checkpoint.Progress(tmp_path, num_rows=13, mesh=mesh)
  for step in (300, 400):
    progress.save(step, rows(mesh), row_keys=("rows",))
  single = mesh_lib.make_mesh(jax.devices()[:1])
  progress = checkpoint.Progress(tmp_path, num_rows=13, mesh=single, by_block=True)
  assert progress.restore(rows(single))[0] == 0
  for step in (100, 200):
    progress.save(step, rows(single), row_keys=("rows",))
  assert progress.restore(rows(single))[0] == 200


def test_nothing_is_saved_or_restored_where_process_0_is_alone(tmp_path, mesh):
  tree = tree_on(mesh, np.ones((13, 2)))
  save = functools.partial(checkpoint.save, tmp_path / "x", tree, row_keys=("features",), mesh=mesh)
  with pytest.raises(RuntimeError, match="within 'drawing'"):
    mesh_lib.on_main("drawing", save)
  save()
  load = functools.partial(checkpoint.load, tmp_path / "x", num_rows=13, mesh=mesh)
  with pytest.raises(RuntimeError, match=f"restoring {tmp_path / 'x'} within 'drawing'"):
    mesh_lib.on_main("drawing", load)
  load()


def test_a_full_disk_is_one_line_and_leaves_the_save_before_it(tmp_path, mesh, rng, caplog):
  progress = checkpoint.Progress(tmp_path, num_rows=13, mesh=mesh)
  small = mesh_lib.replicate(mesh, {"x": np.arange(5.0)})
  progress.save(1, small, row_keys=())
  large = mesh_lib.replicate(mesh, {"x": rng.normal(size=100_000)})
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
  try:
    with pytest.raises(InputError, match="2 cannot be written") as error:
      progress.save(2, large, row_keys=())
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert "\n" not in str(error.value) and "File too large" not in caplog.text
  assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "1.json"]
  step, state = progress.restore({"x": jnp.zeros(5)})
  assert step == 1
  np.testing.assert_array_equal(state["x"], np.arange(5.0))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"row_keys": 3}', '{"row_keys": [], "num'])
def test_a_damaged_record_is_a_save_that_does_not_count(tmp_path, mesh, text):
  progress = checkpoint.Progress(tmp_path, num_rows=13, mesh=mesh)
  for step in (1, 2):
    progress.save(step, mesh_lib.replicate(mesh, {"x": np.full(5, float(step))}), row_keys=())
  (tmp_path / "2.json").write_text(text)
  step, _ = progress.restore({"x": jnp.zeros(5)})
  assert step == 1


def test_a_folder_of_checkpoints_goes_records_first(tmp_path, mesh, monkeypatch):
  progress = checkpoint.Progress(tmp_path / "progress", num_rows=13, mesh=mesh)
  for step in (1, 2):
    progress.save(step, mesh_lib.replicate(mesh, {"x": np.full(100, float(step))}), row_keys=())

  def killed(*arguments, **options):
    raise KeyboardInterrupt

  monkeypatch.setattr(checkpoint.shutil, "rmtree", killed)
  with pytest.raises(KeyboardInterrupt):
    checkpoint.remove_all(tmp_path / "progress")
  for step in (1, 2):
    assert checkpoint.fault(tmp_path / "progress" / str(step)) == "was not finished"
  monkeypatch.undo()
  checkpoint.remove_all(tmp_path / "progress")
  assert not (tmp_path / "progress").exists()
  checkpoint.remove_all(tmp_path / "progress")  # where nothing is


def test_saves_stand_in_the_order_of_their_numbers(tmp_path, mesh):
  progress = checkpoint.Progress(tmp_path, num_rows=13, mesh=mesh)
  for step in (8, 9, 10):
    progress.save(step, mesh_lib.replicate(mesh, {"x": np.full(5, float(step))}), row_keys=())
  assert {path.name for path in tmp_path.glob("*.json")} == {"9.json", "10.json"}
  assert progress.restore({"x": jnp.zeros(5)})[0] == 10
