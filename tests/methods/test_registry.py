"""Every preset: its stages find what they read, and nothing is left that nobody reads."""

import ast
import pathlib

import all_methods
import pytest
from presets import every_preset, load

from udh_jax.configuration import flatten, select
from udh_jax.errors import InputError
from udh_jax.methods import automatic, dhih
from udh_jax.methods.registry import METHODS, make_plan

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "udh_jax"
# Read by no stage: by the runner, the loading of data, scoring, and the choice of stages.
READ_ELSEWHERE = (
  "method",
  "data",
  "score",
  "checkpoint_every",
  "rounds",
  "round_bits",
  "networks",
  "last_round",
  "bits",
  "features",
)


def stages_of(config):
  """Stages of a configuration, with and without published weights, and where all is trained.

  And where CIBHash, which has the views that it takes for it, trains a head, and PSCH a layer.
  """
  config, found = automatic.provisional(config), {}
  cases = [("model.safetensors", ""), ("", ""), ("model.safetensors", "all")]
  cases += [("model.safetensors", "head")] * ("contrast" in config and "views" in config)
  for weights, trained in cases:
    config.teacher.weights = weights
    for section in automatic.SECTIONS:
      if trained and section in config:
        config[section].trained = trained
    if "adapt" in config:
      config.adapt.update(steps=0 if trained else 5, trained="all")
    key = (weights, trained)
    found |= {(stage.name, *key): stage for stage in make_plan(config).stages}
  if "last_round" in config:
    config.update(rounds=2, last_round="layer")
    config.features.image_sizes = config.features.image_sizes[-1:]
    found |= {(stage.name, "layer"): stage for stage in make_plan(config).stages}
  return found.values()


def unread(config) -> set[str]:
  """Fields that no stage declares."""
  fields = {field for stage in stages_of(config) for field in stage.fields} | {*READ_ELSEWHERE}
  return {
    name
    for name in flatten(config)
    if not any(f"{name}.".startswith(f"{field}.") for field in fields)
  }


@pytest.mark.parametrize("preset", every_preset(), ids=":".join)
def test_every_stage_gets_the_fields_it_reads_and_no_field_is_left(preset):
  config = load(*preset)
  for stage in stages_of(config):
    chosen = select(config, stage.fields)  # raises where one is missing
    flat = flatten(chosen)
    assert all(any(f"{name}.".startswith(f"{f}.") for name in flat) for f in stage.fields)
  assert unread(config) == set()


def test_a_teacher_without_weights_is_trained_whole_in_every_method_that_has_one():
  tried = set()
  for preset in every_preset():
    config = automatic.provisional(load(*preset))
    if "pretrain" in config:
      config.teacher.weights, config.pretrain.trained = "", "head"
      if config.method == "udh_ecc":
        config.finetune.trained = config.distill.trained = "all"
      if "adapt" in config:
        config.adapt.steps = 0
      with pytest.raises(InputError, match=r"pretrain\.trained is 'head', but teacher\.weights is"):
        make_plan(config)
      tried.add(config.method)
  assert tried >= {"udh_ecc", "cibhash", "bihalf", "ssdh", "psch", "dhih", "itq"}


def test_a_field_that_no_stage_reads_is_noticed():
  config = load("dhih", "digits")
  config.supervised.unlock()
  config.unlock()
  config.warmup = 3
  assert unread(config) == {"warmup"}


def test_every_field_is_named_where_something_reads_it():
  """A section counts as read as a whole; its fields have to be named in the code besides."""
  named = set()
  for path in SOURCE.rglob("*.py"):
    if path.parent.name == "methods" and path.stem != "run":
      continue  # where fields are made
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Attribute):
        named.add(node.attr)
      elif isinstance(node, ast.arg):
        named.add(node.arg)  # of sections that are handed over as keyword arguments
      elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        named.add(node.value)
  fields = {name for preset in every_preset() for name in flatten(load(*preset))}
  read_by_plans = {"method", "rounds", "round_bits", "networks", "last_round", "cluster.space"}
  assert {name for name in fields if name.rpartition(".")[2] not in named} <= read_by_plans


@pytest.mark.parametrize("preset", every_preset())
def test_collections_of_ones_own_are_not_scored_in_the_order_of_their_classes(preset):
  config = load(*preset)
  assert config.data.name != "folder" or config.score.at == 0
  assert config.score.ties == ("expected" if config.data.name in ("folder", "pairs") else "index")


def test_every_method_has_a_preset():
  assert {load(*preset).method for preset in every_preset()} >= METHODS.keys() - {
    name for name in METHODS if name.startswith("dhih_")
  }


def test_every_method_is_run_to_its_end_on_several_processes(tmp_path):
  run = {config.method for config in all_methods.configurations(tmp_path).values()}
  # Losses and baselines differ within one stage: one of each kind is run.
  alike = dhih.TITLES.keys() - {"dhih", "csq"} | {"pca", "lsh"}
  assert run == METHODS.keys() - alike
