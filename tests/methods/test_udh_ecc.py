"""UDH-ECC, shortened, on real and made pictures."""

import logging

import jax
import numpy as np
import pytest
from presets import load

from udh_jax.errors import InputError
from udh_jax.methods.registry import make_plan
from udh_jax.methods.run import train
from udh_jax.runtime import checkpoint
from udh_jax.runtime import mesh as mesh_lib


def shorten(config):
  """One round of two steps with a small network and no published weights."""
  config.pretrain.update(steps=2, batch_size=16)
  config.teacher.update(backbone="small_convnet", weights="", image_size=16)
  config.student.update(backbone="small_convnet", image_size=16)
  config.features.update(image_sizes=(16,), batch_size=64)
  config.rounds, config.bits, config.dtype = 1, 12, "float32"
  config.cluster.update(
    num_clusters=4,
    num_clusterings=2,
    num_restarts=1,
    max_iterations=12,
    min_size=0,
    max_size=0,
  )
  for section in (config.finetune, config.distill):
    section.update(steps=2, batch_size=16)
  config.soft_labels.batch_size = config.encode.batch_size = 64
  return config


@pytest.fixture
def pictures(tmp_path, rng, monkeypatch):
  """Two class folders of 12 pictures each in different sizes, and one file that is none."""
  from PIL import Image

  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  folder = tmp_path / "pictures"
  for color, name in (((200, 30, 30), "red"), ((30, 30, 200), "blue")):
    (folder / name).mkdir(parents=True)
    for i in range(12):
      size = (20 + i, 40 - i)
      noise = rng.integers(-20, 20, (*size, 3)) + np.array(color)
      Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / name / f"{i}.png")
  (folder / "red" / "notes.jpg").write_text("not a picture")
  return folder


@pytest.mark.slow
@pytest.mark.long
def test_a_folder_with_class_subfolders_is_learned_and_scored(pictures, tmp_path, caplog):
  config = shorten(load("udh_ecc", "folder"))
  config.data.update(path=str(pictures), image_size=24)
  with caplog.at_level(logging.WARNING):
    scores = train(config, tmp_path / "run", devices=jax.devices()[:1])
  assert set(scores) >= {"UDH-ECC", "ITQ", "LSH"}
  assert (tmp_path / "run" / "neighbours_12bits.png").exists()


@pytest.mark.slow
def test_a_folder_without_labels_is_learned_and_says_what_scoring_needs(pictures, tmp_path, capsys):
  for name in ("red", "blue"):
    for path in (pictures / name).iterdir():
      path.rename(pictures / f"{name}{path.name}")
    (pictures / name).rmdir()
  config = shorten(load("udh_ecc", "folder"))
  config.data.update(path=str(pictures), image_size=24)
  assert train(config, tmp_path / "run", devices=jax.devices()[:1]) == {}
  assert "one folder a class" in capsys.readouterr().out
  assert (tmp_path / "run" / "neighbours_12bits.png").exists()


def test_an_unreadable_picture_can_be_refused(pictures, tmp_path):
  config = shorten(load("udh_ecc", "folder"))
  config.data.update(path=str(pictures), image_size=24, on_unreadable="refuse")
  with pytest.raises(InputError, match=r"notes\.jpg"):
    train(config, tmp_path / "run")


@pytest.mark.slow
def test_a_student_that_starts_at_the_teacher_starts_at_its_itq_codes(pictures, tmp_path):
  config = shorten(load("udh_ecc", "folder"))
  config.data.update(path=str(pictures), image_size=24)
  config.distill.update(steps=1, learning_rate=0.0, head_learning_rate=0.0)
  config.finetune.trained = config.distill.trained = "all"
  scores = train(config, tmp_path / "run", devices=jax.devices()[:1])
  assert abs(scores["UDH-ECC"] - scores["ITQ, fine-tuned teacher"]) < 0.01


def test_the_last_teacher_may_be_the_mean_of_several():
  config = shorten(load("udh_ecc", "cifar10"))
  config.rounds, config.networks, config.seed = 3, 2, 4
  stages = {stage.name: stage for stage in make_plan(config).stages}
  members = ["finetune_3_1", "finetune_3_2"]
  assert {"finetune_1", "finetune_2", *members} < stages.keys()
  assert not {"finetune_1_1", "finetune_2_1"} & stages.keys()
  assert stages[members[0]].inputs == stages[members[1]].inputs
  assert stages[members[0]].inputs == {"teacher": "finetune_2", "clustering": "cluster_3"}
  own = [stages[name].read(config).seed for name in members]
  assert own[0] == 4 != own[1]
  assert sorted(stages["finetune_3"].inputs.values()) == members
  for name in ("soft_labels", "distill_12bits"):
    assert stages[name].inputs["teacher"] == "finetune_3"


def test_runs_of_earlier_versions_have_one_teacher_in_each_round():
  config = shorten(load("udh_ecc", "cifar10"))
  plain = make_plan(config)
  with config.unlocked():
    del config["networks"]
  earlier = make_plan(config)
  assert [(s.name, s.inputs) for s in earlier.stages] == [(s.name, s.inputs) for s in plain.stages]


@pytest.mark.slow
def test_codes_are_learned_from_the_mean_of_two_teachers(pictures, tmp_path):
  config = shorten(load("udh_ecc", "folder"))
  config.data.update(path=str(pictures), image_size=24)
  config.finetune.trained = config.distill.trained = "all"
  config.networks = 2
  train(config, tmp_path / "run", devices=jax.devices()[:1])
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  first, second, mean = (
    jax.tree.leaves(
      checkpoint.load(tmp_path / "run" / "stages" / name / "output", num_rows=24, mesh=mesh)[
        "variables"
      ]["params"]
    )
    for name in ("finetune_1_1", "finetune_1_2", "finetune_1")
  )
  apart = []
  for one, other, middle in zip(first, second, mean, strict=True):
    np.testing.assert_allclose(middle, (np.asarray(one) + other) / 2, rtol=1e-5, atol=1e-7)
    apart.append(np.abs(np.asarray(one) - other).max())
  assert max(apart) > 1e-4


@pytest.mark.slow
@pytest.mark.long
def test_mirflickr_in_its_official_layout_is_learned_and_scored(shared, tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  config = shorten(load("udh_ecc", "mirflickr25k"))
  config.data.update(
    path=str(shared / "data" / "mirflickr1k"), num_queries=100, num_train=500, image_size=24
  )
  scores = train(config, tmp_path / "run")
  assert 0.3 < scores["LSH"] < 1
