import pytest
from presets import load

from udh_jax.errors import InputError
from udh_jax.methods.run import require_valid, train


@pytest.mark.slow
@pytest.mark.long
def test_the_contrastive_method_runs_on_the_same_stages_and_on_views(tmp_path):
  config = load("cibhash", "digits")
  config.bits = 12
  config.pretrain.update(steps=2, batch_size=16)
  config.contrast.update(steps=2, batch_size=15, trained="head")
  scores = train(config, tmp_path / "run")
  assert list(scores) == ["CIBHash", "ITQ", "PCA + rotation", "LSH"]
  assert all(0 < value < 1 for value in scores.values())


def test_two_views_are_asked_for():
  config = load("cibhash", "digits")
  config.contrast.trained, config.views.number = "head", 1
  with pytest.raises(InputError, match=r"contrast\.trained is 'head'"):
    require_valid(config)


def test_an_augmentation_that_no_view_has_is_refused():
  config = load("cibhash", "digits")
  config.contrast.trained = "head"
  require_valid(config)
  config.contrast.augment.color = 0.9
  with pytest.raises(InputError, match=r"contrast\.augment is changed"):
    require_valid(config)
