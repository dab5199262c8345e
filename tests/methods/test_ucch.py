"""UCCH's plan; that it learns, scores and publishes is in test_dudch.py, with the other methods."""

import pytest
from presets import load

from udh_jax.errors import InputError
from udh_jax.methods.registry import make_plan


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("contrast_share", 1.5, r"ucch\.contrast_share is 1\.5; give a finite number from 0 to 1"),
    ("memory_momentum", -0.1, r"ucch\.memory_momentum is -0\.1"),
    ("negatives", 0, r"ucch\.negatives is 0; give a whole number from 1"),
    ("trained", "some", r"ucch\.trained is 'some'"),
  ],
)
def test_what_cannot_run_is_refused(field, value, message):
  config = load("ucch", "features")
  config.ucch[field] = value
  with pytest.raises(InputError, match=message):
    make_plan(config)


def test_features_are_made_once_where_the_backbone_stays():
  config = load("ucch", "pairs")
  names = [stage.name for stage in make_plan(config).stages]
  assert names == ["teacher", "features_1", "ucch_32bits", "encode_32bits"]
  assert all("features" in stage.inputs for stage in make_plan(config).stages[2:])
  config.ucch.trained = "all"
  stages = make_plan(config).stages  # the layers are fitted to features in any case
  assert [stage.name for stage in stages] == names
  assert ["features" in stage.inputs for stage in stages[2:]] == [True, False]
  config.ucch.trained, config.features.image_sizes = "head", (224, 96)
  with pytest.raises(InputError, match=r"features\.image_sizes is \(224, 96\), .* give one"):
    make_plan(config)
