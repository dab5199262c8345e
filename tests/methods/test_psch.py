"""Plans of PSCH."""

import itertools

import pytest
from by_hand import (
  config_of,
)
from ml_collections import ConfigDict

from udh_jax.errors import InputError
from udh_jax.methods import psch
from udh_jax.methods.registry import make_plan
from udh_jax.stages.features import reading_size


@pytest.mark.parametrize(
  ("section", "values", "message"),
  [
    ("parts", {"groups": 7}, "128 channels cannot be split into 7 equal groups"),
    ("psch", {"similarity": "soft"}, "psch.similarity is 'soft'; give one of parts, one"),
    ("psch", {"apart": -2.0}, "psch.apart is -2.0; give a finite number from -1 to 1"),
    ("psch", {"classifier": "both"}, "psch.classifier is 'both'; give one of codes, features"),
    ("psch", {"unsure": "drop"}, "psch.unsure is 'drop'; give one of ignore, structure"),
  ],
)
def test_an_invalid_configuration_is_refused_before_anything_runs(section, values, message):
  config: ConfigDict = config_of("psch", **{section: values})
  with pytest.raises(InputError, match=message) as error:
    make_plan(config)
  assert "\n" not in str(error.value)


def test_what_is_not_read_has_no_stage():
  usual = psch.plan(config_of("psch")).stages
  names = [stage.name for stage in usual]
  assert "structure" not in names and any("parts" in stage.fields for stage in usual)
  hard = psch.plan(config_of("psch", psch={"similarity": "one"})).stages
  assert not any("parts" in stage.fields for stage in hard)
  with_structure = psch.plan(config_of("psch", psch={"unsure": "structure"})).stages
  assert [stage.name for stage in with_structure if stage.name not in names] == ["structure"]


def test_each_round_learns_from_the_features_of_the_network_before():
  config = config_of("psch", cluster={"space": "neighbours"}, psch={"unsure": "structure"})
  config.rounds, config.round_bits = 3, 12
  plan = psch.plan(config)
  stages = {stage.name: stage for stage in plan.stages}
  networks = ["teacher", "psch_1_12bits", "psch_2_12bits", "psch_12bits"]
  for number, (before, after) in enumerate(itertools.pairwise(networks), start=1):
    features, late = f"features_{number}", "" if number == 1 else f"_{number}"
    assert stages[features].inputs == {"teacher": before}
    assert "parts" in stages[features].fields
    assert stages[f"cluster_{number}"].inputs == {"features": f"embedding_{number}"}
    assert stages[after].inputs == {
      "teacher": before,
      "features": features,
      "clustering": f"cluster_{number}",
      "baselines": f"baselines{late}_12bits",
      "structure": f"structure{late}",
    }
    assert stages[f"baselines{late}_12bits"].inputs == {"features": features}
  assert plan.network == "psch_12bits" and len(plan.clusters) == 3
  titles = [source.title for source in plan.codes]
  assert titles[:2] == ["PSCH", "ITQ, features of round 3"] and titles[-3] == "ITQ"
  seeds = [stages[name].build.keywords["seed_offset"] for name in networks[1:]]
  assert seeds == [0, 1, 2]


def test_rounds_before_the_last_are_the_same_for_codes_of_every_length():
  config = config_of("psch", psch={"hash_start": "itq"})
  config.rounds, config.round_bits = 2, 12
  plans = {}
  for config.bits in (12, 16):
    plans[config.bits] = {stage.name: stage for stage in psch.plan(config).stages}
  shared = plans[12].keys() & plans[16].keys()
  assert shared == {
    *("teacher", "features_1", "cluster_1", "baselines_12bits", "psch_1_12bits"),
    *("features_2", "cluster_2"),
  }
  for name in shared:
    first, second = plans[12][name], plans[16][name]
    assert first.inputs == second.inputs
  config.bits = 16
  own = {name: stage.read(config).get("bits") for name, stage in plans[16].items()}
  for name, bits in {"psch_1_12bits": 12, "baselines_12bits": 12, "psch_16bits": 16}.items():
    assert own[name] == bits
  assert plans[16]["baselines_16bits"].inputs == {"features": "features_1"}
  assert plans[16]["baselines_2_16bits"].inputs == {"features": "features_2"}


def test_codes_of_every_length_may_be_learned_on_the_mean_of_several_networks():
  config = config_of("psch", psch={"hash_start": "itq", "classifier": "features"})
  config.rounds, config.round_bits, config.networks, config.last_round = 3, 12, 2, "layer"
  plans = {}
  for config.bits in (12, 16):
    plans[config.bits] = {stage.name: stage for stage in psch.plan(config).stages}
  stages = plans[16]
  own = {name: stage.read(config) for name, stage in stages.items()}
  members = ["psch_2_12bits_1", "psch_2_12bits_2"]
  assert {"psch_1_12bits", *members} < stages.keys() and "psch_1_12bits_1" not in stages
  assert own[members[0]].seed == config.seed != own[members[1]].seed
  assert stages[members[0]].inputs == stages[members[1]].inputs
  assert sorted(stages["psch_2_12bits"].inputs.values()) == members
  assert stages["features_3"].inputs == {"teacher": "psch_2_12bits"}
  last = stages["psch_16bits"]
  assert "layer" in last.fields and "layer" not in stages[members[0]].fields
  assert last.inputs["teacher"] == "psch_2_12bits" and last.inputs["features"] == "features_3"
  assert last.inputs["baselines"] == "baselines_3_16bits" and own["psch_16bits"].bits == 16
  # No picture is read again, and no network trained again, for another length.
  assert stages["encode_16bits"].inputs == {"network": "psch_16bits", "features": "features_3"}
  again = stages.keys() - plans[12].keys()
  assert again == {"baselines_16bits", "baselines_3_16bits", "psch_16bits", "encode_16bits"}


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"rounds": 1, "networks": 2}, "networks is 2, but rounds is 1"),
    ({"rounds": 1, "last_round": "layer"}, "last_round is 'layer', but rounds is 1"),
    (
      {"last_round": "layer", "psch.hash_start": "random"},
      "hash_start is 'random', but last_round",
    ),
    ({"last_round": "layer", "features.image_sizes": (8, 12)}, r"\(8, 12\), but last_round is"),
    ({"last_round": "head"}, "last_round is 'head'; give one of network, layer"),
    ({"networks": 0}, "networks is 0; give a whole number from 1"),
  ],
)
def test_what_the_last_round_cannot_be_is_refused(fields, message):
  config = config_of("psch", psch={"hash_start": "itq"})
  config.rounds = 2
  with config.unlocked():
    config.update_from_flattened_dict(fields)
  with pytest.raises(InputError, match=message) as error:
    make_plan(config)
  assert "\n" not in str(error.value)


def test_runs_of_earlier_versions_have_one_network_in_each_round():
  config = config_of("psch", psch={"hash_start": "itq"})
  config.rounds = 2
  plain = psch.plan(config)
  with config.unlocked():
    for name in ("networks", "last_round", "layer"):
      del config[name]
    del config.psch["classifier"]
  earlier = psch.plan(config)
  assert [s.name for s in earlier.stages] == [s.name for s in plain.stages]
  assert [s.inputs for s in earlier.stages] == [s.inputs for s in plain.stages]


def test_earlier_codes_that_are_longer_than_the_features_are_refused():
  config = config_of("psch", psch={"hash_start": "itq"})
  config.round_bits = 300
  psch.plan(config)  # one round, in which it is not read
  config.rounds = 2
  with pytest.raises(InputError, match="round_bits is 300, but small_convnet has only 128"):
    psch.plan(config)


def test_each_round_reads_at_its_side_and_codes_are_read_at_the_last():
  config = config_of("psch")
  config.rounds, config.features.image_sizes = 3, (8, 12)
  stages = {stage.name: stage for stage in psch.plan(config).stages}
  sides = [stages[f"features_{n}"].build.keywords["image_size"] for n in (1, 2, 3)]
  assert sides == [8, 12, 12]
  assert reading_size(config) == 12
