"""What is chosen from a collection of pictures without labels."""

import pytest
from ml_collections import ConfigDict
from presets import load

from udh_jax.configuration import override
from udh_jax.errors import InputError
from udh_jax.methods import automatic, cibhash, psch, udh_ecc
from udh_jax.methods.automatic import Collection
from udh_jax.methods.registry import make_plan
from udh_jax.models.registry import BACKBONES


def open_config(method=udh_ecc):
  config = method.default_config("folder")
  automatic.on_any_pictures(config)
  return config


@pytest.mark.parametrize(
  ("side", "expected"),
  [(32, (160, 128)), (160, (224, 160)), (4000, (224, 160)), (8, (32, 32)), (1, (32, 32))],
)
def test_sides_follow_the_pictures_up_to_the_networks_own(side, expected):
  assert automatic.sides(Collection(1000, side), "mobilenetv2_100") == expected


def test_sides_are_multiples_of_the_patch():
  for name, backbone in BACKBONES.items():
    for side in (1, 8, 32, 45, 160, 4000):
      found = automatic.sides(Collection(1000, side), name)
      assert not any(size % backbone().side_multiple for size in found)
      assert min(found) >= backbone().least_side
  assert automatic.sides(Collection(1000, 4000), "vit_small_patch14_dinov2") == (224, 168)


def test_sides_that_the_backbone_cannot_read_are_refused_before_any_work():
  config = automatic.provisional(open_config(psch))
  config.teacher.backbone = "vit_small_patch14_dinov2"
  with pytest.raises(InputError, match=r"^features\.image_sizes is 100; .*14.* such as 98 or 112"):
    config.features.image_sizes = (100,)
    make_plan(config)
  config = automatic.provisional(open_config(psch))
  config.teacher.backbone = "vit_small_patch14_dinov2"
  config.features.image_sizes = (98,)
  with pytest.raises(InputError, match=r"^student\.image_size is 160; "):
    make_plan(config)


def test_training_lasts_some_passes_with_a_floor_and_a_ceiling():
  assert automatic.steps(2, 64) == automatic.FEWEST_STEPS
  assert automatic.steps(1000, 64) == 125
  assert automatic.steps(10**7, 64) == automatic.MOST_STEPS
  assert [automatic.steps(n, 64, longer=2) for n in (2, 2000, 10**7)] == [120, 500, 800]


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


def test_labelled_pictures_choose_sides_and_lengths_too():
  found, chosen = automatic.resolve(load("dhih", "folder"), Collection(300, 160))
  assert found.features.image_sizes == (224,) and found.student.image_size == 160
  few = ("head", automatic.LABELLED_HEAD_STEPS)
  assert (found.supervised.trained, found.supervised.steps) == few
  assert "auto" not in str(found) and "supervised.steps" in chosen
  found, _ = automatic.resolve(load("dhih", "folder"), Collection(2000, 160))
  assert (found.supervised.trained, found.supervised.steps) == ("all", 500)
  config = load("dhih", "folder_csq")
  config.supervised.trained = "head"
  found, _ = automatic.resolve(config, Collection(100_000, 160))
  assert found.supervised.steps == automatic.LABELLED_HEAD_STEPS


def test_a_configuration_without_auto_stays_as_it_is():
  config = udh_ecc.default_config("digits")
  config.student.backbone = config.teacher.backbone
  found, chosen = automatic.resolve(config, Collection(1000, 8))
  assert chosen == {} and found.to_dict() == config.to_dict()


def test_a_field_that_may_be_auto_takes_a_number_and_the_word():
  config = open_config()
  changed = override(config, {"distill.steps": 100, "cluster.min_size": "auto"})
  found, chosen = automatic.resolve(changed, Collection(1000, 160))
  assert found.distill.steps == 100 and "distill.steps" not in chosen
  assert found.cluster.min_size == 8 and config.cluster.min_size == 0


def test_auto_where_nothing_chooses_is_refused():
  config = ConfigDict({"data": {"seed": "auto"}, "seed": 0})
  with pytest.raises(InputError, match=r"data\.seed is 'auto', but nothing chooses it"):
    automatic.with_values(config, {})


def test_clusters_have_a_quarter_of_their_mean_to_four_times_it():
  assert automatic.sizes(1000, 30) == (8, 134)
  assert automatic.sizes(2, 1) == (1, 8) and automatic.sizes(3, 3) == (1, 4)
  config = open_config()
  config.cluster.update(num_clusters=10, min_size="auto", max_size="auto")
  found, chosen = automatic.resolve(config, Collection(1000, 160))
  assert (found.cluster.min_size, found.cluster.max_size) == (25, 400)
  assert chosen["cluster.max_size"] == 400
  config.cluster.min_size = config.cluster.max_size = 0  # as the paper's: equal
  found, chosen = automatic.resolve(config, Collection(1000, 160))
  assert found.cluster.max_size == 0 and "cluster.min_size" not in chosen


def test_clusters_are_finer_than_classes_and_never_more_than_pictures():
  assert [automatic.clusters(n) for n in (2, 9, 100, 300, 5000)] == [1, 4, 10, 15, 30]
