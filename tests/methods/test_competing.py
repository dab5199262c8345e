"""Presets of competing methods have what the methods beside them have, and lengths of their own."""

import pytest

from udh_jax.methods import automatic, bihalf, cibhash, competing, ssdh, udh_ecc
from udh_jax.methods.automatic import Collection


@pytest.mark.parametrize("side", [8, 32, 160, 4000])
@pytest.mark.parametrize(("method", "section"), [(bihalf, "bihalf"), (cibhash, "contrast")])
def test_on_features_sides_follow_the_pictures_and_the_length_stays(method, section, side):
  preset = competing.presets(method.default_config, section, trained="head", steps=123)["folder"]
  beside = udh_ecc.default_config("folder")
  automatic.on_any_pictures(beside)
  expected, _ = automatic.resolve(beside, Collection(300, side))
  found, chosen = automatic.resolve(preset(), Collection(300, side))
  assert found.features.image_sizes == expected.features.image_sizes
  assert found.student.image_size == expected.student.image_size
  assert (found[section].trained, found[section].steps) == ("head", 123)
  assert "auto" not in str(found) and f"{section}.steps" not in chosen
  assert found.score.at == 0


def test_a_training_on_pictures_lasts_as_long_as_they_bear():
  preset = competing.presets(ssdh.default_config, "ssdh", learning_rate=0.5)["folder"]
  few, _ = automatic.resolve(preset(), Collection(300, 160))
  assert few.features.image_sizes == (224,) and few.ssdh.learning_rate == 0.5
  assert (few.ssdh.trained, few.ssdh.steps) == ("last", automatic.FEWEST_STEPS)
  many, _ = automatic.resolve(preset(), Collection(100_000, 160))
  assert (many.ssdh.trained, many.ssdh.steps) == ("all", automatic.MOST_STEPS)


def test_a_folder_may_have_fields_of_its_own():
  presets = competing.presets(
    cibhash.default_config, "contrast", on_a_folder={"temperature": 0.7}, temperature=0.9, steps=12
  )
  found = [presets[name]().contrast.temperature for name in ("cifar10", "mirflickr25k", "folder")]
  assert found == [0.9, 0.9, 0.7] and presets["cifar10"]().contrast.steps == 12


def test_sets_with_sizes_of_their_own_choose_nothing():
  presets = competing.presets(bihalf.default_config, "bihalf", steps=123)
  for name, at in (("digits", 0), ("cifar10", 1000), ("mirflickr25k", 5000)):
    assert "auto" not in str(presets[name]()) and presets[name]().score.at == at
  assert presets["cifar10"]().bihalf.steps == 123 and presets["digits"]().bihalf.steps == 200
