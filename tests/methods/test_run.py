"""What a run refuses before it works, and how it notes where its files are."""

import json

import pytest
from ml_collections import ConfigDict
from PIL import Image
from presets import load, shorten_pairs

from udh_jax.encoders.loading import load_encoder
from udh_jax.errors import InputError
from udh_jax.files import held
from udh_jax.methods import automatic, run
from udh_jax.report import plots, sections
from udh_jax.retrieval import mean_average_precision


def test_files_and_folders_are_stored_from_the_root_on(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", "/home/me")
  config = load("udh_ecc", "folder")
  config.data.path, config.teacher.weights = "pictures", "~/w.safetensors"
  found = run.with_absolute_paths(config)
  assert found.data.path == str(tmp_path / "pictures")
  assert found.teacher.weights == "/home/me/w.safetensors"
  assert config.data.path == "pictures"
  pairs = load("dudch", "pairs")
  assert run.with_absolute_paths(pairs).data.folder == ""  # the table's
  pairs.data.folder = "pictures"
  assert run.with_absolute_paths(pairs).data.folder == str(tmp_path / "pictures")
  for kept in ("", "hf-hub:timm/resnet18.a1_in1k", "gs://bucket/pictures"):
    config.teacher.weights = kept
    assert run.with_absolute_paths(config).teacher.weights == kept


def test_processes_compare_the_contents_of_their_pictures(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  (tmp_path / "pictures").mkdir()
  for value in range(8):
    Image.new("RGB", (9, 9), (value,) * 3).save(tmp_path / "pictures" / f"{value}.bmp")
  config = load("udh_ecc", "folder")
  config.data.update(path=str(tmp_path / "pictures"), num_queries=2, num_validation=0)
  texts = []
  monkeypatch.setattr(run.mesh_lib, "require_same", lambda what, text: texts.append(text))
  dataset = run._context(config).dataset
  assert dataset.contents_digest in texts[0].split("\n")


def test_a_missing_field_is_named_before_anything_runs():
  for preset in (("quickstart",), ("dudch", "wikipedia")):
    whole = load(*preset)
    for section, name in (("score", "ties"), ("teacher", "weights"), (None, "seed")):
      config = ConfigDict(whole.to_dict())
      del (config if section is None else config[section])[name]
      with pytest.raises(InputError, match=f"The configuration lacks a field .*{name}"):
        run.require_valid(config)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("", "is not JSON"),
    ("[]", "expected an object"),
    ("{}", "it has no field method"),
    ('{"method": 3}', "its field method is 3, expected text"),
    ('{"method": "itq", "data": []}', "its field data is"),
    ('{"method": "itq", "data": {}}', "it has no field name"),
    ('{"method": "itq", "data": {"name": "digits"}}', "lacks a field"),
    ('{"method": "itk", "data": {"name": "digits"}}', "method 'itk' is unknown"),
  ],
)
def test_a_damaged_configuration_of_a_run_is_one_line(tmp_path, text, words):
  (tmp_path / "config.json").write_text(text)
  with pytest.raises(InputError, match=words) as error:
    run.score(tmp_path)
  assert "\n" not in str(error.value)


def test_scores_that_cannot_be_written_are_refused_before_any_image_is_read(tmp_path, monkeypatch):
  config = automatic.provisional(load("quickstart")).to_dict()
  (tmp_path / "config.json").write_text(json.dumps(config))

  def refuse(workdir):
    raise InputError(f"{workdir} cannot be written to")

  monkeypatch.setattr(run, "prepare_workdir", refuse)
  monkeypatch.setattr(run, "_context", lambda config: pytest.fail("images were read"))
  with pytest.raises(InputError, match="cannot be written to"):
    run.score(tmp_path)


def test_a_work_directory_among_the_pictures_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(run, "_context", lambda *_: pytest.fail("images were read"))
  config = load("baseline", "itq")
  config.data.path = str(tmp_path / "pictures")
  (tmp_path / "pictures").mkdir()
  (tmp_path / "link").symlink_to(tmp_path / "pictures")
  for place in ("pictures", "pictures/run", "link/run"):
    with pytest.raises(InputError, match="lies in the folder of pictures"):
      run.train(config, tmp_path / place)
  assert not list((tmp_path / "pictures").iterdir())


def test_the_work_directory_of_another_method_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(run, "_context", lambda *_: pytest.fail("images were read"))
  (tmp_path / "config.json").write_text(json.dumps(load("baseline", "itq_digits").to_dict()))
  with pytest.raises(InputError, match="holds a run of itq, and this one is of lsh"):
    run.train(load("baseline", "lsh_digits"), tmp_path)


def test_a_folder_of_several_seeds_names_them(tmp_path):
  for seed in (1, 0):
    (tmp_path / f"seed_{seed}").mkdir()
    (tmp_path / f"seed_{seed}" / "config.json").write_text("{}")
  with pytest.raises(InputError, match=r"holds runs of several seeds; .* such as .*seed_0\.$"):
    run.score(tmp_path)


def test_a_run_of_an_earlier_version_is_scored_within_radius_2(tmp_path):
  config = automatic.provisional(load("baseline", "itq_digits"))
  stored = config.to_dict()
  assert stored["score"].pop("radius") == 2
  (tmp_path / "config.json").write_text(json.dumps(stored))
  found = run.stored_config(tmp_path)
  assert found == config
  run.require_valid(found)
  del found.score.radius
  with pytest.raises(InputError, match=r"lacks a field .*radius"):
    run.require_valid(found)


def test_two_runs_in_one_work_directory_are_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(run, "_context", lambda *_: pytest.fail("images were read"))
  config = automatic.provisional(load("baseline", "itq_digits"))
  (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
  with held(tmp_path):
    for again in (lambda: run.train(config, tmp_path), lambda: run.score(tmp_path)):
      with pytest.raises(InputError, match="Another program is at work in"):
        again()


@pytest.mark.parametrize("of_another_seed", [False, True])
def test_weights_of_a_seed_are_looked_for_unless_another_has_read_them(
  tmp_path, monkeypatch, of_another_seed
):
  class Read(Exception):
    pass

  def read(*_):
    raise Read

  monkeypatch.setattr(run, "_context", read)
  config = load("quickstart")
  config.teacher.weights = str(tmp_path / "absent.safetensors")
  beside = tmp_path / "seed_0"
  if of_another_seed:
    (beside / "stages" / "teacher").mkdir(parents=True)
    (beside / "stages" / "teacher" / "output.json").write_text("{}")
  with pytest.raises(Read if of_another_seed else InputError):
    run.train(config, tmp_path / "seed_1", beside=[beside])


def test_weights_that_are_not_there_are_refused_before_any_image_is_read(tmp_path, monkeypatch):
  monkeypatch.setattr(run, "_context", lambda *_: pytest.fail("images were read"))
  config = load("quickstart")
  config.teacher.weights = str(tmp_path / "absent.safetensors")
  with pytest.raises(InputError, match=r"absent\.safetensors do not exist"):
    run.train(config, tmp_path / "run")


def test_what_fails_while_pictures_are_drawn_loses_no_score_and_no_network(
  tmp_path, made, small_weights, monkeypatch
):
  def fail(*_, **__):
    raise OSError("no room for a picture")

  for place in ((plots, "bit_statistics"), (sections, "gallery"), (sections, "precision_recall")):
    monkeypatch.setattr(*place, fail)
  baseline = load("baseline", "itq_digits")
  baseline.teacher.weights = small_weights
  pairs = shorten_pairs(load("djsrh", "wikipedia"), made)
  for name, config in (("images", baseline), ("pairs", pairs)):
    workdir = tmp_path / name
    with pytest.raises(OSError, match="no room"):
      run.train(config, workdir)
    bits = config.bits
    (entry,) = json.loads((workdir / "metrics.json").read_text())
    scores = entry["mean_average_precision"]
    assert (workdir / f"metrics_{bits}bits.md").exists()
    assert load_encoder(workdir / f"encoder_{bits}bits").about["scores"] == scores
    assert not (workdir / f"report_{bits}bits.html").exists()
    found = run.load_codes(workdir)  # what was scored, to score it by oneself
    query, database = found.splits.query, found.splits.database
    assert (found.bits, len(found.names)) == (bits, len(found.labels))
    for row, score in scores.items():
      title, _, direction = row.partition(", ")
      sides = direction.split("→") if direction else ("image", "image")
      codes = found.codes[title]
      again = mean_average_precision(
        codes.query[sides[0]][query],
        codes.database[sides[1]][database],
        found.labels[query],
        found.labels[database],
        at=config.score.at or None,
      )
      assert again == pytest.approx(score)
