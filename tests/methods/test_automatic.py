"""What is chosen from a collection of pictures without labels."""

import pytest
from ml_collections import ConfigDict

from udh_jax.errors import InputError
from udh_jax.methods import automatic, cibhash, psch, udh_ecc
from udh_jax.methods.automatic import Collection


def open_config(method=udh_ecc):
  config = method.default_config("folder")
  automatic.on_any_pictures(config)
  return config


@pytest.mark.parametrize(
  ("side", "expected"),
  [(32, (160, 128)), (160, (224, 160)), (4000, (224, 160)), (8, (32, 32)), (1, (32, 32))],
)
def test_sides_follow_the_pictures_up_to_the_networks_own(side, expected):
  assert automatic.sides(Collection(1000, side)) == expected


def test_training_lasts_some_passes_with_a_floor_and_a_ceiling():
  assert automatic.steps(2, 64) == automatic.FEWEST_STEPS
  assert automatic.steps(1000, 64) == 125
  assert automatic.steps(10**7, 64) == automatic.MOST_STEPS


@pytest.mark.parametrize("method", [udh_ecc, psch])
def test_every_open_field_gets_a_value_and_a_set_one_stays(method):
  config = open_config(method)
  section = "distill" if method is udh_ecc else "psch"
  config[section].steps = 7
  found, chosen = automatic.resolve(config, Collection(1000, 160))
  assert found[section].steps == 7 and f"{section}.steps" not in chosen
  assert found.features.image_sizes == (224,) and chosen["student.image_size"] == 160
  assert found[section].trained == "head" and found.views.number == automatic.MANY_VIEWS
  assert found.data.held_out == automatic.HELD_OUT
  assert found.cluster.num_clusters == 30
  assert "auto" not in str(automatic.provisional(config))
  large, _ = automatic.resolve(config, Collection(100_000, 160))
  assert large.views.number == automatic.FEW_VIEWS


@pytest.mark.parametrize(("trained", "steps"), [("head", 400), ("last", 60), ("all", 60)])
def test_what_is_trained_decides_how_long(trained, steps):
  config = open_config(psch)
  config.psch.trained, config.psch.batch_size = trained, 256
  assert automatic.resolve(config, Collection(1000, 160))[0].psch.steps == steps


def test_methods_without_a_guard_train_what_a_collection_bears():
  config = open_config(cibhash)
  found, _ = automatic.resolve(config, Collection(1000, 160))
  assert found.contrast.trained == "last" and found.data.held_out == 0
  assert automatic.resolve(config, Collection(100_000, 160))[0].contrast.trained == "all"


def test_a_configuration_without_auto_stays_as_it_is():
  config = udh_ecc.default_config("digits")
  found, chosen = automatic.resolve(config, Collection(1000, 8))
  assert chosen == {} and found.to_dict() == config.to_dict()


def test_auto_where_nothing_chooses_is_refused():
  config = ConfigDict({"data": {"seed": "auto"}, "seed": 0})
  with pytest.raises(InputError, match=r"data\.seed is 'auto', but nothing chooses it"):
    automatic.with_values(config, {})


def test_clusters_are_finer_than_classes_and_never_more_than_pictures():
  assert [automatic.clusters(n) for n in (2, 9, 100, 300, 5000)] == [1, 4, 10, 15, 30]
