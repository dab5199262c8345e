import pytest
from presets import load, shorten_pairs

from udh_jax.errors import InputError
from udh_jax.methods.run import require_valid, train


def test_weights_for_images_that_are_features_are_refused(made, tmp_path):
  config = shorten_pairs(load("djsrh", "wikipedia"), made)
  (tmp_path / "mobilenetv2.safetensors").write_bytes(b"not read")
  config.teacher.weights = str(tmp_path / "mobilenetv2.safetensors")
  with pytest.raises(InputError, match="The images of features are features"):
    train(config, tmp_path / "run")


def test_codes_of_another_length_are_those_of_a_teacher_alone():
  config = load("djsrh", "wikipedia")
  config.bits, config.djsrh.bits = 32, 64
  with pytest.raises(InputError, match=r"djsrh\.bits is 64, but bits is 32"):
    require_valid(config)
  config.djsrh.bits = 32
  require_valid(config)
