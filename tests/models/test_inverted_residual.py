import jax
import numpy as np
import pytest

from udh_jax.models.heads import Classifier
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import load_weights


@pytest.fixture
def golden(shared):
  with np.load(shared / "weights/mobilenetv2_100_golden.npz") as archive:
    return dict(archive)


@pytest.mark.slow
def test_published_weights_give_the_features_and_logits_of_another_implementation(golden, shared):
  path = shared / "weights/mobilenetv2_100.safetensors"
  pretrained = load_weights("mobilenetv2_100", path, num_classes=1001)
  images = golden["images_224"].astype(np.float32) / 255
  images = (images - np.float32(pretrained.mean)) / np.float32(pretrained.std)
  network = Classifier(create_backbone("mobilenetv2_100", padding=pretrained.padding), 1001)
  logits, features = jax.jit(network.apply)(pretrained.variables, images)
  np.testing.assert_allclose(features, golden["pooled_features"], atol=1e-4)
  np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)
  assert pretrained.padding == "same"
  assert pretrained.mean == pretrained.std == (0.5, 0.5, 0.5)
  assert pretrained.labels_used.startswith("ImageNet-1k")
