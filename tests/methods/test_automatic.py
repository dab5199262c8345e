"""What is chosen from a collection of pictures without labels."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.errors import InputError
from udh_jax.methods import automatic, psch, udh_ecc
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
  assert found[section].trained == "last"
  assert automatic.is_open(found)  # clusters take features
  assert not automatic.is_open(automatic.provisional(config))
  large, _ = automatic.resolve(config, Collection(100_000, 160))
  assert large[section].trained == "all"


def test_a_configuration_without_auto_stays_as_it_is():
  config = udh_ecc.default_config("digits")
  found, chosen = automatic.resolve(config, Collection(1000, 8))
  assert chosen == {} and found.to_dict() == config.to_dict()


def test_auto_where_nothing_chooses_is_refused():
  config = ConfigDict({"data": {"seed": "auto"}, "seed": 0})
  with pytest.raises(InputError, match=r"data\.seed is 'auto', but nothing chooses it"):
    automatic.with_values(config, {})


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_clear_groups_are_counted_and_unclear_ones_divided_finely(rng):
  centres = rng.normal(size=(5, 20))
  clear = unit(centres[np.arange(500) % 5] + 0.2 * rng.normal(size=(500, 20)))
  assert automatic.choose_clusters(clear, seed=0) == (5, 0, 0)
  even = unit(rng.normal(size=(900, 20)))
  assert automatic.choose_clusters(even, seed=0) == (18, 0, 0)


def test_very_unequal_groups_get_bounds_that_hold_their_sizes(rng):
  centres = rng.normal(size=(2, 20))
  labels = (np.arange(600) < 60).astype(int)
  rows = unit(centres[labels] + 0.2 * rng.normal(size=(600, 20)))
  number, least, most = automatic.choose_clusters(rows, seed=0)
  assert number == 2
  assert 0 < least <= 60 and 540 <= most <= 600


@pytest.mark.parametrize("rows", [np.ones((2, 4)), np.ones((50, 4)), np.eye(2)])
def test_few_or_equal_pictures_get_as_many_clusters_as_can_be_told_apart(rows):
  number, least, most = automatic.choose_clusters(unit(rows), seed=0)
  assert number == len(np.unique(rows, axis=0)) and (least, most) == (0, 0)
