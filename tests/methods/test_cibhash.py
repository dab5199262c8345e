import pytest
from presets import load

from udh_jax.methods.run import train


@pytest.mark.slow
def test_the_contrastive_method_runs_on_the_same_stages(tmp_path):
  config = load("cibhash", "digits")
  config.bits = 12
  config.pretrain.update(steps=2, batch_size=16)
  config.contrast.update(steps=2, batch_size=15)
  scores = train(config, tmp_path / "run")
  assert list(scores) == ["CIBHash", "ITQ", "PCA + rotation", "LSH"]
  assert all(0 < value < 1 for value in scores.values())
