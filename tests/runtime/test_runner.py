"""The runner on small made stages: what it reuses, refuses, takes up and stops."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.errors import InputError, TrainingError
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.runner import Runner, prepare_workdir
from udh_jax.runtime.stage import Context, Stage, Work
from udh_jax.sharding import split_rows

STEPS = 10


@pytest.fixture
def context(mesh):
  rows = np.arange(13)
  dataset = Dataset(
    name="made",
    images=np.zeros((13, 2, 2, 3), np.uint8),
    image_shape=(2, 2, 3),
    labels=rows % 2,
    names=[str(row) for row in rows],
    class_names=["even", "odd"],
    splits=Splits(train=rows[:10], database=rows[:10], query=rows[10:]),
    protocol="made",
    digest="",
    texts=np.eye(13) > 0,
  )
  return Context(mesh, dataset)


@pytest.fixture
def config():
  return ConfigDict({"checkpoint_every": 4, "rate": 0.5, "other": 1, "deep": {"a": 1, "b": 2}})


class Counted:
  """Two stages: ``walk`` adds its step numbers up, ``scale`` multiplies its result."""

  def __init__(self, *, stop_at=None, bad_at=None, bad_parameter_at=None):
    self.stop_at, self.bad_at, self.bad_parameter_at = stop_at, bad_at, bad_parameter_at
    self.steps, self.scaled = [], 0

  def walk(self, context, config, inputs):
    def step(state, batch):
      self.steps.append(batch)
      if batch == self.stop_at:
        raise KeyboardInterrupt
      bad = jnp.nan if batch == self.bad_at else 0.0
      weight = jnp.nan if batch == self.bad_parameter_at else 1.0
      after = {
        "total": state["total"] + batch * config.rate,
        "parameters": {"weight": state["parameters"]["weight"] * weight, "count": 3},
      }
      return after, {"loss": state["total"] + bad}

    start = {"total": np.float32(0), "parameters": {"weight": np.ones(2, np.float32), "count": 3}}
    return Work(
      state=mesh_lib.replicate(context.mesh, start),
      step=step,
      num_steps=STEPS,
      batches=lambda first: iter(range(first, STEPS)),
      finish=lambda state: state,
    )

  def scale(self, context, config, inputs):
    self.scaled += 1
    return Work(finish=lambda state: {"value": inputs["walked"]["total"] * 10})

  def stages(self):
    return [
      Stage("walk", self.walk, ("rate",)),
      Stage("scale", self.scale, ("deep.a",), inputs={"walked": "walk"}),
    ]


def run(context, config, workdir, made, **options):
  return Runner(context, config, workdir).run(made.stages(), **options)


def value(outputs):
  return float(outputs["scale"]["value"])


def test_stages_run_once_and_are_then_restored(context, config, tmp_path):
  made = Counted()
  assert value(run(context, config, tmp_path, made)) == 225.0
  again = Counted()
  assert value(run(context, config, tmp_path, again)) == 225.0
  assert (again.steps, again.scaled) == ([], 0)


def test_an_interrupted_stage_goes_on_from_its_last_save(context, config, tmp_path):
  with pytest.raises(KeyboardInterrupt):
    run(context, config, tmp_path, Counted(stop_at=9))
  made = Counted()
  assert value(run(context, config, tmp_path, made)) == 225.0
  assert made.steps == [8, 9]


def test_a_stage_may_have_values_of_its_own_for_fields(context, config, tmp_path):
  def build(context, config, inputs):
    return Work(finish=lambda state: {"read": np.array([config.rate, config.deep.a])})

  stage = Stage("reads", build, ("rate", "deep"))
  own = stage.with_settings(rate=7.5).named("own")
  outputs = Runner(context, config, tmp_path).run([stage, own])
  assert outputs["reads"]["read"].tolist() == [config.rate, config.deep.a]
  assert outputs["own"]["read"].tolist() == [7.5, config.deep.a]
  config.rate = 0.25  # is not what decides the stage, so its outputs stand
  Runner(context, config, tmp_path).run([own], restore_only=True)
  with pytest.raises(InputError, match=r"own.*rate=7.5 \(now 8.0\)"):
    Runner(context, config, tmp_path).run([own.with_settings(rate=8.0)])


def test_a_changed_field_is_refused_by_name_with_both_values(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  config.rate = 0.25
  with pytest.raises(InputError, match=r"walk.*rate=0.5 \(now 0.25\).*--workdir"):
    run(context, config, tmp_path, Counted())


def test_a_half_finished_stage_of_another_configuration_is_refused_too(context, config, tmp_path):
  with pytest.raises(KeyboardInterrupt):
    run(context, config, tmp_path, Counted(stop_at=9))
  config.rate = 0.25
  with pytest.raises(InputError, match="rate"):
    run(context, config, tmp_path, Counted())


def test_another_version_of_the_formula_is_refused(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  made = Counted()
  walk, scale = made.stages()
  newer = [walk, scale._replace(version=2)]
  with pytest.raises(InputError, match=r"scale.*version 1 of its formula.*version 2.*--workdir"):
    Runner(context, config, tmp_path).run(newer)


@pytest.mark.parametrize("by_block", [True, False])
def test_a_free_field_may_change_and_half_a_pass_by_block_starts_again(
  by_block, context, config, tmp_path
):
  def stages(made):
    walk, scale = made.stages()

    def build(context, config, inputs):
      return walk.build(context, config, inputs)._replace(by_block=by_block)

    return [walk._replace(build=build, fields=("rate", "other"), free=("other",)), scale]

  with pytest.raises(KeyboardInterrupt):
    Runner(context, config, tmp_path).run(stages(Counted(stop_at=9)))
  config.other = 2
  made = Counted()
  assert value(Runner(context, config, tmp_path).run(stages(made))) == 225.0
  assert made.steps == list(range(0 if by_block else 8, STEPS))
  config.other = 3
  again = Counted()
  assert value(Runner(context, config, tmp_path).run(stages(again))) == 225.0
  assert (again.steps, again.scaled) == ([], 0)
  config.rate = 0.25
  with pytest.raises(InputError, match="rate"):
    Runner(context, config, tmp_path).run(stages(Counted()))


def test_a_field_that_a_stage_does_not_read_changes_nothing(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  config.other, config.deep.b = 7, 7
  assert value(run(context, config, tmp_path, Counted())) == 225.0


def test_a_remade_input_is_not_mixed_with_what_was_made_of_the_old_one(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  shutil.rmtree(tmp_path / "stages" / "walk")
  config.rate = 0.25
  with pytest.raises(InputError, match=r"scale.*from the walked of another walk"):
    run(context, config, tmp_path, Counted())


def test_other_data_is_refused(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  for changes in ({"protocol": "other data"}, {"texts": np.eye(13) > 1}):
    other = context._replace(dataset=dataclasses.replace(context.dataset, **changes))
    with pytest.raises(InputError, match="was made from made"):
      run(other, config, tmp_path, Counted())


def test_another_content_of_a_file_is_refused_and_a_file_that_is_gone_is_not(
  context, config, tmp_path
):
  def stages(made, digest):
    walk, scale = made.stages()
    return [walk._replace(files=lambda fields: {"rate": digest}), scale]

  def again(digest):
    made = Counted()
    assert value(Runner(context, config, tmp_path).run(stages(made, digest))) == 225.0
    return made.steps, made.scaled

  assert again("one")[1] == 1
  assert again("one") == ([], 0)
  assert again("") == ([], 0)
  with pytest.raises(InputError, match=r"walk.*file rate=0.5, or .* something else.*one, now two"):
    again("two")
  shutil.rmtree(tmp_path / "stages" / "walk")  # what was made of the old one is not mixed with it
  with pytest.raises(InputError, match=r"scale.*from the walked of another walk"):
    again("two")


def test_a_file_that_has_moved_is_the_same(context, config, tmp_path):
  def again(rate, digest):
    made = Counted()
    walk, scale = made.stages()
    config.rate = rate
    files = {"files": lambda fields: {"rate": digest}, "fields": ("rate", "other")}
    Runner(context, config, tmp_path).run([walk._replace(**files), scale])
    return made.steps, made.scaled

  assert again(0.5, "")[1] == 1
  with pytest.raises(InputError, match=r"walk.*made with rate=0.5 \(now 0.25\)"):
    again(0.25, "")  # of neither is anything known
  shutil.rmtree(tmp_path / "stages")
  assert again(0.5, "one")[1] == 1
  record = (tmp_path / "stages/walk/stage.json").read_text()
  assert again(0.25, "one") == ([], 0)
  assert (tmp_path / "stages/walk/stage.json").read_text() == record
  config.other = 7
  with pytest.raises(InputError, match=r"walk.*made with other=1 \(now 7\)\. "):
    again(0.25, "one")  # what else has changed is told alone
  config.other = 1
  for digest in ("two", ""):  # another, and one that is not to be found
    with pytest.raises(InputError, match=r"walk.*made with rate=0.5 \(now 0.25\)"):
      again(0.25, digest)


def test_what_an_earlier_version_did_not_note_is_taken_as_unchanged(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  for path in tmp_path.glob("stages/*/stage.json"):
    record = json.loads(path.read_text())
    path.write_text(
      json.dumps({k: v for k, v in record.items() if k not in ("files", "labels_used")})
    )
  made = Counted()
  stages = [stage._replace(files=lambda fields: {"rate": "one"}) for stage in made.stages()]
  assert value(Runner(context, config, tmp_path).run(stages)) == 225.0
  assert (made.steps, made.scaled) == ([], 0)


def test_other_labels_behind_the_features_are_refused(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  dataset = dataclasses.replace(context.dataset, labels_used="ImageNet-1k, supervised")
  with pytest.raises(InputError, match=r"walk.*pre-training labels.*ImageNet-1k"):
    run(context._replace(dataset=dataset), config, tmp_path, Counted())


def test_labels_are_seen_by_stages_that_declare_them_and_count_for_them_alone(
  context, config, tmp_path
):
  def see(context, config, inputs):
    labels = context.dataset.labels
    total = -1 if labels is None else labels[context.dataset.splits.train].sum()
    return Work(finish=lambda state: {"total": jnp.asarray(total)})

  def totals(labels):
    stages = [Stage("blind", see, ()), Stage("sees", see, (), reads_labels=True)]
    changed = context._replace(dataset=dataclasses.replace(context.dataset, labels=labels))
    outputs = Runner(changed, config, tmp_path).run(stages)
    return [int(outputs[name]["total"]) for name in ("blind", "sees")]

  labels = np.arange(13) % 2
  assert totals(labels) == [-1, 5]
  labels[12] = 1  # a query's: nothing is learned from it
  assert totals(labels) == [-1, 5]
  labels[0] = 1
  with pytest.raises(InputError, match=r"Stage sees .* training labels"):
    totals(labels)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_save(context, config, tmp_path):
  with pytest.raises(TrainingError, match="walk: loss was not finite at step 6 of 10"):
    run(context, config, tmp_path, Counted(bad_at=5))
  saves = {p.name for p in (tmp_path / "stages" / "walk" / "progress").glob("*.json")}
  assert saves == {"4.json"}
  assert not (tmp_path / "stages" / "walk" / "output").exists()


@pytest.mark.parametrize(("bad_at", "told", "kept"), [(3, 4, set()), (9, 10, {"4.json", "8.json"})])
def test_parameters_that_are_not_finite_are_neither_saved_nor_handed_on(
  context, config, tmp_path, bad_at, told, kept
):
  """As where the gradient of a finite loss overflows, at a step that is saved or at the last."""
  with pytest.raises(TrainingError, match=f"a parameter was not finite at step {told} of 10"):
    run(context, config, tmp_path, Counted(bad_parameter_at=bad_at))
  folder = tmp_path / "stages" / "walk"
  assert {path.name for path in (folder / "progress").glob("*.json")} == kept
  assert not (folder / "output").exists()


def test_a_stage_that_left_nothing_may_be_begun_with_other_settings(context, config, tmp_path):
  with pytest.raises(KeyboardInterrupt):
    run(context, config, tmp_path, Counted(stop_at=0))
  assert (tmp_path / "stages" / "walk" / "stage.json").exists()
  config.rate = 0.25
  assert value(run(context, config, tmp_path, Counted())) == 112.5
  config.rate = 0.5
  with pytest.raises(InputError, match=r"walk.*rate=0.25 \(now 0.5\)"):
    run(context, config, tmp_path, Counted())


@pytest.mark.parametrize("stop_at", [None, 9])
def test_results_without_their_record_are_refused(context, config, tmp_path, stop_at):
  if stop_at is None:
    run(context, config, tmp_path, Counted())
  else:
    with pytest.raises(KeyboardInterrupt):
      run(context, config, tmp_path, Counted(stop_at=stop_at))
  (tmp_path / "stages" / "walk" / "stage.json").unlink()
  with pytest.raises(InputError, match=r"holds results of stage walk and no stage\.json"):
    run(context, config, tmp_path, Counted())


def test_a_damaged_output_is_named_and_made_again_from_the_last_save(
  context, config, tmp_path, caplog
):
  run(context, config, tmp_path, Counted())
  folder = tmp_path / "stages" / "walk" / "output"
  path = max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(InputError, match=f"{folder} is damaged; run train.py"):
    run(context, config, tmp_path, Counted(), restore_only=True)
  assert path.exists()
  made = Counted()
  assert value(run(context, config, tmp_path, made)) == 225.0
  assert made.steps == [8, 9]
  assert f"{folder} is damaged" in caplog.text


def test_scoring_does_not_train(context, config, tmp_path):
  with pytest.raises(InputError, match=r"walk.*is not finished"):
    run(context, config, tmp_path, Counted(), restore_only=True)
  run(context, config, tmp_path, Counted())
  assert value(run(context, config, tmp_path, Counted(), restore_only=True)) == 225.0


def test_a_stage_sees_only_the_fields_it_declares(config):
  chosen = select(config, ("rate", "deep.a"))
  assert chosen.to_dict() == {"rate": 0.5, "deep": {"a": 1}}
  with pytest.raises(AttributeError):
    _ = chosen.deep.b


def test_a_workdir_that_cannot_be_written_is_refused(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="cannot be written to"):
    prepare_workdir(pathlib.Path(tmp_path / "file" / "run"))


def test_rows_of_outputs_stay_on_their_devices(context, config, tmp_path):
  def build(context, config, inputs):
    rows = split_rows(context.mesh, np.arange(13))
    return Work(finish=lambda state: {"rows": rows}, row_outputs=("rows",))

  stages = [Stage("rows", build, ())]
  Runner(context, config, tmp_path).run(stages)
  found = Runner(context, config, tmp_path).run(stages)["rows"]["rows"]
  assert len({s.device for s in found.addressable_shards}) == jax.device_count()
  np.testing.assert_array_equal(mesh_lib.to_host(found, 13), np.arange(13))


def test_other_images_of_the_same_names_are_refused(context, config, tmp_path):
  run(context, config, tmp_path, Counted())
  other = dataclasses.replace(context.dataset, images=np.ones((13, 2, 2, 3), np.uint8))
  other = context._replace(dataset=other)
  with pytest.raises(InputError, match=r"walk.*other images of the same names.*--workdir"):
    run(other, config, tmp_path, Counted())
  for name in ("walk", "scale"):  # as earlier versions noted it
    record = tmp_path / "stages" / name / "stage.json"
    made = json.loads(record.read_text())
    del made["images"]
    record.write_text(json.dumps(made))
  assert value(run(other, config, tmp_path, Counted())) == 225.0


class Files(np.ndarray):
  """Images that know the contents of their files."""

  contents = ""


def with_contents(context, contents):
  images = context.dataset.images.view(Files)
  images.contents = contents
  return context._replace(dataset=dataclasses.replace(context.dataset, images=images))


def test_images_of_other_contents_are_refused_where_both_are_known(context, config, tmp_path):
  old, one, two = (with_contents(context, contents) for contents in ("", "1" * 32, "2" * 32))
  run(one, config, tmp_path / "new", Counted())
  with pytest.raises(
    InputError, match=r"walk.*same names and sizes and other contents \(digest 1{12}, now 2{12}\)"
  ):
    run(two, config, tmp_path / "new", Counted())
  made = Counted()
  run(old, config, tmp_path / "new", made)
  run(old, config, tmp_path / "old", Counted())
  identities = set()
  for path in tmp_path.glob("*/stages/scale/stage.json"):
    record = json.loads(path.read_text())
    assert record.get("contents") == ("1" * 12 if path.parts[-4] == "new" else None)
    identities.add(str(record["inputs"]))
  assert len(identities) == 1  # so that old work directories stay valid
  for now in (one, two):
    run(now, config, tmp_path / "old", made)
  assert (made.steps, made.scaled) == ([], 0)


def test_what_an_earlier_version_made_is_taken_from_beside_as_it_is(context, config, tmp_path):
  old, one, two = (with_contents(context, contents) for contents in ("", "1" * 32, "2" * 32))
  run(old, config, tmp_path / "old", Counted())
  run(one, config, tmp_path / "new", Counted())
  made = Counted()
  run_beside(one, config, tmp_path / "second", made, tmp_path / "old")
  assert (made.steps, made.scaled) == ([], 0)
  assert "contents" not in json.loads((tmp_path / "second/stages/walk/stage.json").read_text())
  run_beside(two, config, tmp_path / "third", made, tmp_path / "new")
  assert (made.steps, made.scaled) == (list(range(STEPS)), 1)


def test_another_input_of_a_finished_stage_is_refused(context, config, tmp_path):
  walk, scale = Counted().stages()
  one = mesh_lib.replicate(context.mesh, {"value": np.float32(1)})
  alone = scale._replace(name="alone", build=lambda *_: Work(finish=lambda state: one), inputs={})
  Runner(context, config, tmp_path).run([walk, alone])
  with pytest.raises(InputError, match=r"alone.*was made from the walked of another None"):
    Runner(context, config, tmp_path).run([walk, alone._replace(inputs={"walked": "walk"})])


def test_a_later_stage_is_refused_before_an_earlier_one_runs(context, config, tmp_path):
  made = Counted()
  walk, scale = made.stages()
  first, second = walk.named("first"), scale.named("second", walked="first")
  Runner(context, config, tmp_path).run([first, second])
  made.steps.clear()
  with pytest.raises(InputError, match=r"second.*was made from the walked of another first"):
    Runner(context, config, tmp_path).run([first, walk, second.named("second", walked="walk")])
  assert made.steps == []


@pytest.mark.parametrize("change", ["rate", "version", "labels"])
def test_what_was_made_of_an_older_stage_further_back_is_refused(context, config, tmp_path, change):
  """The first two of three stages are made anew; the last is still of the old ones."""

  def last(context, config, inputs):
    return Work(finish=lambda state: {"value": inputs["scaled"]["value"] + 1})

  def stages(version=1):
    walk, scale = Counted().stages()
    walk = walk._replace(version=version, reads_labels=True)
    return [walk, scale, Stage("last", last, (), inputs={"scaled": "scale"})]

  Runner(context, config, tmp_path).run(stages())
  for name in ("walk", "scale"):
    shutil.rmtree(tmp_path / "stages" / name)
  if change == "rate":
    config.rate = 0.25
  if change == "labels":
    labels = 1 - context.dataset.labels
    context = context._replace(dataset=dataclasses.replace(context.dataset, labels=labels))
  with pytest.raises(InputError, match=r"last.*was made from the scaled of another scale"):
    Runner(context, config, tmp_path).run(stages(2 if change == "version" else 1))


def stage_of_rows():
  """A stage ``rows`` whose state and outputs have a row an image."""
  walk, _ = Counted().stages()

  def build(context, config, inputs):
    work = Counted().walk(context, config, inputs)
    rows = split_rows(context.mesh, np.zeros(13, np.float32))
    return work._replace(
      state=work.state | {"rows": rows},
      step=lambda state, batch: (state | {"total": state["total"] + batch}, {"loss": batch * 1.0}),
      row_state=("rows",),
      row_outputs=("rows",),
    )

  return walk._replace(name="rows", build=build)


@pytest.mark.parametrize("records", [True, False])
def test_saves_of_rows_that_a_kill_left_go_at_the_next_run(
  records, context, config, tmp_path, monkeypatch
):
  """Killed after the output is saved: before the saves are cleared, or in the middle of that."""
  walk, _ = Counted().stages()
  stages, folder = [walk, stage_of_rows()], tmp_path / "stages"

  def kill(place):
    if not records:
      for record in place.glob("*.json"):
        record.unlink()
    if place.parent.name == "rows":
      raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr("udh_jax.runtime.checkpoint.remove_all", kill)
    with pytest.raises(KeyboardInterrupt):
      Runner(context, config, tmp_path).run(stages)
  assert (folder / "rows" / "output.json").exists()
  assert (folder / "rows" / "progress" / "8").exists()
  assert (folder / "rows" / "progress" / "8.json").exists() == records
  Runner(context, config, tmp_path).run(stages, restore_only=True)
  assert (folder / "rows" / "progress").exists()  # scoring removes nothing
  Runner(context, config, tmp_path).run(stages)
  assert not (folder / "rows" / "progress").exists()
  assert (folder / "walk" / "progress" / "8.json").exists()  # for where its output is damaged


def test_saves_of_rows_go_when_the_stage_has_ended_and_metrics_have_their_step(
  context, config, tmp_path, monkeypatch
):
  seen = []
  monkeypatch.setattr(
    "udh_jax.runtime.runner.StageLog.metrics", lambda self, step, values: seen.append(step)
  )
  walk, _ = Counted().stages()
  Runner(context, config, tmp_path).run([walk, stage_of_rows()])
  folder = tmp_path / "stages"
  assert (folder / "walk" / "progress" / "8.json").exists()
  assert not (folder / "rows" / "progress").exists()
  assert seen == 2 * list(range(1, STEPS + 1))


def run_beside(context, config, workdir, made, *others):
  return Runner(context, config, workdir, beside=others).run(made.stages())


def test_a_stage_that_would_be_the_same_is_taken_from_beside(context, config, tmp_path):
  expected = value(run(context, config, tmp_path / "first", Counted()))
  again = config.copy_and_resolve_references()
  made = Counted()
  config.deep.a = 7  # of the second stage alone
  outputs = run_beside(
    context, config, tmp_path / "second", made, tmp_path / "none", tmp_path / "first"
  )
  assert (made.steps, made.scaled) == ([], 1) and value(outputs) == expected
  shutil.rmtree(tmp_path / "second")  # files that both have stay the first's
  made = Counted()
  assert value(run(context, again, tmp_path / "first", made)) == expected
  assert made.steps == []


def test_a_stage_of_a_file_that_has_moved_is_taken_from_beside(context, config, tmp_path):
  def at(rate, workdir, *beside):
    made = Counted()
    walk, scale = made.stages()
    config.rate = rate
    stages = [walk._replace(files=lambda fields: {"rate": "one"}), scale]
    for _ in range(2):  # and goes on from there
      Runner(context, config, workdir, beside=beside).run(stages)
    return made.steps, made.scaled

  assert at(0.5, tmp_path / "first")[1] == 1
  assert at(0.25, tmp_path / "second", tmp_path / "first") == ([], 0)


def test_a_stage_of_other_fields_is_not_taken_from_beside(context, config, tmp_path):
  run(context, config, tmp_path / "first", Counted())
  config.rate = 0.25
  made = Counted()
  run_beside(context, config, tmp_path / "second", made, tmp_path / "first")
  assert made.steps == list(range(STEPS)) and made.scaled == 1


def test_what_is_half_done_gives_way_to_what_is_finished_beside(context, config, tmp_path):
  expected = value(run(context, config, tmp_path / "first", Counted()))
  with pytest.raises(KeyboardInterrupt):
    run(context, config, tmp_path / "second", Counted(stop_at=6))
  made = Counted()
  assert (
    value(run_beside(context, config, tmp_path / "second", made, tmp_path / "first")) == expected
  )
  assert made.steps == [] and not (tmp_path / "second/stages/walk/progress").exists()
  with pytest.raises(KeyboardInterrupt):
    run(context, config, tmp_path / "third", Counted(stop_at=6))
  made = Counted()
  assert value(run_beside(context, config, tmp_path / "third", made, tmp_path / "none")) == expected
  assert made.steps[0] == 4


def test_what_is_damaged_beside_is_made_here(context, config, tmp_path):
  expected = value(run(context, config, tmp_path / "first", Counted()))
  output = tmp_path / "first/stages/walk/output"
  largest = max(
    (path for path in output.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
  )
  largest.write_bytes(b"damaged")
  made = Counted()
  assert (
    value(run_beside(context, config, tmp_path / "second", made, tmp_path / "first")) == expected
  )
  assert made.steps == list(range(STEPS))
  assert largest.read_bytes() == b"damaged"
