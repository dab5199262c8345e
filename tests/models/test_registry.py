"""Backbones by name, and where each ends."""

import jax
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.models.registry import BACKBONES, create_backbone


def test_unknown_names_are_refused_with_the_known_ones():
  with pytest.raises(InputError, match=r"resnet51.*mobilenetv2_100, resnet18, resnet50"):
    create_backbone("resnet51")
  with pytest.raises(InputError, match=r"valid.*symmetric, same"):
    create_backbone("resnet18", padding="valid")
  with pytest.raises(InputError, match=r"float16.*bfloat16"):
    create_backbone("resnet18", dtype="float16")


@pytest.mark.parametrize("name", BACKBONES)
def test_about_a_sixth_of_the_layers_is_last(name):
  backbone = create_backbone(name)
  variables = jax.eval_shape(backbone.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
  parts = list(variables["params"])
  assert all(any(part.startswith(last) for part in parts) for last in backbone.last_parts)
  kernels = [
    path[0].key
    for path, leaf in jax.tree.leaves_with_path(variables["params"])
    if len(leaf.shape) > 1
  ]
  share = sum(part.startswith(backbone.last_parts) for part in kernels) / len(kernels)
  assert 0.1 < share < 0.35 or (name == "small_convnet" and share == 0)
