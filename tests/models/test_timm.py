"""Each network against timm's own PyTorch model, with the same random weights.

timm's computes in float64. Ours is within 1e-4 of the largest value, or where a hundred layers
round more than that, within twice what timm's own float32 is off.
"""

import jax
import numpy as np
import pytest

from udh_jax.models.registry import BACKBONES, create_backbone
from udh_jax.models.weights import load_weights, save_weights

# Sides of the images: what the position embedding is for, or odd ones that leave rows over.
SIZES = {
  "convnext_tiny": ((96, 64), (75, 101)),
  "efficientnet_b0": ((96, 64), (75, 101)),
  "efficientnet_lite0": ((96, 64), (75, 101)),
  "mobilenetv2_100": ((96, 64), (75, 101)),
  "resnet18": ((96, 64), (75, 101)),
  "resnet50": ((96, 64), (75, 101)),
  "resnet101": ((96, 64), (75, 101)),
  "tf_efficientnet_b0": ((96, 64), (75, 101)),
  "tf_efficientnet_lite0": ((96, 64), (75, 101)),
  "vit_base_patch14_dinov2": ((98, 126),),
  "vit_base_patch14_reg4_dinov2": ((98, 126),),
  "vit_base_patch16_224": ((224, 224), (96, 256)),
  "vit_base_patch16_384": ((224, 224),),
  "vit_base_patch16_clip_224": ((224, 224), (96, 256)),
  "vit_base_patch16_clip_quickgelu_224": ((96, 256),),
  "vit_base_patch16_siglip_224": ((224, 224), (96, 256)),
  "vit_base_patch16_siglip_256": ((224, 224),),
  "vit_base_patch16_siglip_384": ((224, 224),),
  "vit_small_patch14_dinov2": ((518, 518), (98, 126)),
  "vit_small_patch14_reg4_dinov2": ((518, 518), (98, 126)),
  "vit_small_patch16_224": ((224, 224), (96, 256)),
}


def test_every_network_of_timm_is_compared():
  assert SIZES.keys() == BACKBONES.keys() - {"small_convnet"}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SIZES))
def test_features_map_and_logits_are_those_of_timm(rng, tmp_path, timm, name):
  import torch
  from safetensors.torch import load_file, save_file

  from udh_jax.models.heads import Classifier

  options = {"dynamic_img_size": True} if name.startswith("vit") else {}
  model = timm.create_model(name, num_classes=7, **options).eval()
  tensors = {place: random_tensor(torch, rng, *item) for place, item in shapes_of(model).items()}
  model.load_state_dict(tensors)
  if not name.startswith("vit"):
    take_statistics(torch, model, rng)
  tensors = {place: tensor.clone() for place, tensor in model.state_dict().items()}
  save_file(tensors, tmp_path / "model.safetensors")
  pretrained = load_weights(name, tmp_path / "model.safetensors", num_classes=7)
  backbone = create_backbone(name, padding=pretrained.padding)
  network = jax.jit(Classifier(backbone, 7).apply)
  bare = {kind: tree["backbone"] for kind, tree in pretrained.variables.items()}
  map_of = jax.jit(lambda variables, images: backbone.apply(variables, images, pooled=False))
  for size in SIZES[name]:
    images = rng.standard_normal((2, *size, 3)).astype(np.float32)
    logits, features = network(pretrained.variables, images)
    pictures = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
      rounded = model.float().forward_features(pictures)
      whole = model.double().forward_features(pictures.double())
      expected = model.forward_head(whole, pre_logits=True).numpy()
      expected_logits = model.forward_head(whole).numpy()
    off = float((rounded - whole).abs().max() / whole.abs().max())
    assert features.shape == (2, backbone.feature_dim)
    assert_close(features, expected, off)
    assert_close(logits, expected_logits, off)
    assert np.ptp(expected, axis=0).max() > 0.01 * np.abs(expected).max()  # not biases alone
    if name.startswith("vit"):  # tokens: those of the patches come last
      rows, columns = (side // backbone.side_multiple for side in size)
      whole = whole[:, -rows * columns :].reshape(2, rows, columns, -1)
    else:
      whole = whole.permute(0, 2, 3, 1)
    assert_close(map_of(bare, images), whole.numpy(), off)
  save_weights(name, pretrained.variables, tmp_path / "again.safetensors")
  again = load_file(tmp_path / "again.safetensors")
  assert again.keys() == {place for place in tensors if not place.endswith("num_batches_tracked")}
  assert all(torch.equal(tensors[place], tensor) for place, tensor in again.items())


def shapes_of(model):
  return {place: (place, tensor) for place, tensor in model.state_dict().items()}


def random_tensor(torch, rng, place, tensor):
  """Values at which no layer is lost beside the others."""
  shape = tuple(tensor.shape)
  if place.endswith("num_batches_tracked"):
    return torch.tensor(3)
  if place.endswith("running_var") or (len(shape) == 1 and place.endswith(("weight", "gamma"))):
    values = rng.uniform(0.5, 1.5, shape)
  elif len(shape) == 1 or place.endswith(("running_mean", "_token", "pos_embed", "latent")):
    values = rng.standard_normal(shape) * 0.3
  else:
    values = rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
  return torch.from_numpy(values.astype(np.float32))


def take_statistics(torch, model, rng):
  """Gives batch normalisations the statistics of some images, or the signal dies in deep ones."""
  for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.momentum = 1.0
  with torch.inference_mode():
    model.train()(torch.from_numpy(rng.standard_normal((8, 3, 224, 224)).astype(np.float32)))
    for module in model.modules():
      if isinstance(module, torch.nn.BatchNorm2d):
        module.running_var.clamp_(min=0.1)  # a channel that is nearly still is not blown up
  model.eval()


def assert_close(found, expected, off):
  scale = np.abs(expected).max()
  np.testing.assert_allclose(np.asarray(found) / scale, expected / scale, atol=max(1e-4, 2 * off))
