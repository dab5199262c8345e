"""Every network by name: its tensors, its sides, its end."""

import functools
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.models.convnext import ConvNeXt
from udh_jax.models.inverted_residual import Blocks, InvertedResidualNet
from udh_jax.models.registry import BACKBONES, create_backbone, is_last, require_side
from udh_jax.models.vit import VisionTransformer
from udh_jax.models.weights import load_weights, save_weights, timm_shapes

LISTED = pathlib.Path(__file__).with_name("timm_tensors.txt")

# One of each kind, with the options of the published ones but few and narrow layers.
_VIT = functools.partial(VisionTransformer, patch=4, width=16, depth=2, heads=2, image_size=24)
SMALL = {
  "vit_plain": _VIT,
  "vit_dinov2_registers": functools.partial(_VIT, registers=2, layer_scale=True),
  "vit_clip": functools.partial(_VIT, pre_norm=True, activation="quick_gelu", epsilon=1e-5),
  "vit_siglip": functools.partial(_VIT, class_token=False),
  "efficientnet": functools.partial(
    InvertedResidualNet,
    plan=(Blocks(1, 8, 1, 1, 3), Blocks(2, 8, 2, 2, 5), Blocks(2, 16, 1, 2, 3)),
    activation="silu",
    squeeze=True,
    stem_width=8,
    feature_dim=24,
  ),
  "convnext": functools.partial(ConvNeXt, depths=(1, 2), widths=(8, 16)),
}


@pytest.fixture(params=sorted(SMALL))
def small(request, monkeypatch):
  """Name of a small network, registered for the time of a test."""
  monkeypatch.setitem(BACKBONES, request.param, SMALL[request.param])
  return request.param


def random_variables(name, rng):
  module = create_backbone(name)
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 24, 24, 3)))

  def draw(leaf):
    if len(leaf.shape) < 2:
      return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
    fan_in = math.prod(leaf.shape[:-1])
    return (rng.standard_normal(leaf.shape) / math.sqrt(fan_in)).astype(np.float32)

  return jax.tree.map(draw, dict(shapes))


def listed_tensors():
  """Name and shape of each tensor of timm's networks."""
  listed = {}
  for line in LISTED.read_text().splitlines()[1:]:
    if line.startswith("["):
      tensors = {}
      listed |= dict.fromkeys(line.strip("[]").split(), tensors)
      continue
    name, _, shape = line.partition(" ")
    run = re.search(r"(?<=\.)(\d+)-(\d+)(?=\.)", name)
    first, last = map(int, run.groups()) if run else (0, 0)
    for number in range(first, last + 1):
      whole = name.replace(run.group(), str(number)) if run else name
      tensors[whole] = tuple(int(length) for length in shape.split(",") if length)
  return listed


def test_unknown_names_are_refused_with_the_known_ones():
  with pytest.raises(InputError, match=r"resnet51.*mobilenetv2_100, resnet101, resnet18"):
    create_backbone("resnet51")
  with pytest.raises(InputError, match=r"valid.*symmetric, same"):
    create_backbone("resnet18", padding="valid")
  with pytest.raises(InputError, match=r"float16.*bfloat16"):
    create_backbone("resnet18", dtype="float16")


def test_tensors_have_the_names_and_shapes_of_timm():
  listed = listed_tensors()
  assert listed.keys() == BACKBONES.keys() - {"small_convnet"}
  for name, tensors in listed.items():
    assert timm_shapes(name, 7) == tensors, name
    head = create_backbone(name).classifier
    assert tensors[f"{head}.weight"] == (7, create_backbone(name).feature_dim), name


# One of each kind; the others by the slow tests (test_timm.py).
@pytest.mark.parametrize(
  "name",
  [
    "convnext_tiny",
    "efficientnet_lite0",
    "resnet18",
    "small_convnet",
    "vit_base_patch16_siglip_224",
    "vit_small_patch14_reg4_dinov2",
  ],
)
def test_features_and_maps_have_their_shapes_at_other_sizes(name):
  backbone = create_backbone(name)
  step = backbone.side_multiple
  height, width = (max(side // step * step, backbone.least_side) for side in (75, 133))
  images = jnp.zeros((2, height, width, 3))
  variables = jax.eval_shape(backbone.init, jax.random.key(0), images)
  own = jnp.zeros((1, backbone.image_size, backbone.image_size, 3))
  at_own_size = jax.eval_shape(backbone.init, jax.random.key(0), own)
  assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, at_own_size)
  features = jax.eval_shape(backbone.apply, variables, images)
  assert features.shape == (2, backbone.feature_dim) and features.dtype == jnp.float32
  whole = jax.eval_shape(functools.partial(backbone.apply, pooled=False), variables, images)
  assert whole.shape[0] == 2 and whole.shape[3] == backbone.feature_dim
  assert whole.dtype == jnp.float32
  if step > 1:
    assert whole.shape[1:3] == (height // step, width // step)


def test_the_end_of_a_network_is_its_last_sixth_and_what_follows():
  for name in BACKBONES:
    head = create_backbone(name).classifier
    parts, kernels = set(), []  # names of top-level parts, as our trees have them
    for tensor, shape in timm_shapes(name, 7).items():
      if tensor not in (f"{head}.weight", f"{head}.bias"):
        part = re.sub(r"\.(\d+)", r"_\1", tensor).partition(".")[0]
        parts.add(part)
        kernels += [part] if len(shape) > 1 else []
    last = {part for part in parts if is_last(name, part)}
    if name == "small_convnet":
      assert last == parts
      continue
    assert 0.08 < sum(part in last for part in kernels) / len(kernels) < 0.35, name
    first = {"patch_embed", "pos_embed", "cls_token", "reg_token", "norm_pre", "stem_0", "conv1"}
    assert last and not last & (first | {"conv_stem", "bn1", "blocks_1", "stages_2", "layer3_0"})
  assert is_last("vit_base_patch16_siglip_224", "attn_pool")
  assert is_last("vit_base_patch16_clip_224", "norm")
  assert is_last("convnext_tiny", "stages_3") and is_last("convnext_tiny", "head")
  assert is_last("efficientnet_b0", "blocks_6_0") and is_last("efficientnet_b0", "conv_head")


def test_sides_that_a_network_cannot_read_are_refused_with_those_it_can():
  require_side("vit_small_patch14_dinov2", "teacher.image_size", 98)
  with pytest.raises(InputError, match=r"^teacher\.image_size is 100; .*14.* such as 98 or 112"):
    require_side("vit_small_patch14_dinov2", "teacher.image_size", 100)
  with pytest.raises(InputError, match="14 pixels a side and more"):
    require_side("vit_small_patch14_dinov2", "teacher.image_size", 0)
  with pytest.raises(InputError, match="32 pixels a side and more"):
    require_side("convnext_tiny", "teacher.image_size", 31)
  require_side("convnext_tiny", "teacher.image_size", 33)
  require_side("resnet101", "teacher.image_size", 8)
  backbone = create_backbone("convnext_tiny")
  with pytest.raises(InputError, match="31 x 40"):
    jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 31, 40, 3)))
  backbone = create_backbone("vit_base_patch14_dinov2")
  with pytest.raises(InputError, match=r"28 x 40.*14"):
    jax.eval_shape(backbone.init, jax.random.key(0), jnp.zeros((1, 28, 40, 3)))


def test_padding_is_what_the_name_stands_for_unless_it_is_given():
  assert create_backbone("efficientnet_lite0").padding == "symmetric"
  assert create_backbone("tf_efficientnet_lite0").padding == "same"
  assert create_backbone("tf_efficientnet_b0", padding="symmetric").padding == "symmetric"
  assert create_backbone("mobilenetv2_100", padding="same").padding == "same"


def test_what_is_saved_is_loaded(rng, tmp_path, small):
  variables = random_variables(small, rng)
  save_weights(small, variables, tmp_path / "w.safetensors")
  loaded = load_weights(small, tmp_path / "w.safetensors").variables
  jax.tree.map(np.testing.assert_array_equal, loaded, variables)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32_and_gradients_reach_every_parameter(rng, small):
  images = rng.standard_normal((2, 24, 28, 3)).astype(np.float32)
  variables = random_variables(small, rng)
  params = variables["params"]
  weights = rng.standard_normal(create_backbone(small).feature_dim).astype(np.float32)

  def value(params, images, dtype):
    features = create_backbone(small, dtype=dtype).apply({**variables, "params": params}, images)
    return (features @ weights).sum(), features

  run = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=2)
  (_, exact), gradients = run(params, images, "float32")
  (_, coarse), coarse_gradients = run(params, images, "bfloat16")
  assert exact.dtype == coarse.dtype == jnp.float32
  exact, coarse = np.asarray(exact), np.asarray(coarse)
  assert not np.array_equal(exact, coarse)
  assert np.linalg.norm(exact - coarse) < 0.05 * np.linalg.norm(exact)
  for tree in (gradients, coarse_gradients):
    for place, leaf in jax.tree_util.tree_leaves_with_path(tree):
      assert leaf.dtype == jnp.float32
      assert np.isfinite(leaf).all() and np.any(leaf), jax.tree_util.keystr(place)
  # The slope along the gradient is its squared length.
  length = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients)))
  step = 1e-2 / length

  def moved(sign):
    there = jax.tree.map(lambda leaf, slope: leaf + sign * step * slope, params, gradients)
    return run(there, images, "float32")[0][0]

  slope = (moved(1) - moved(-1)) / (2 * step)
  np.testing.assert_allclose(slope, length**2, rtol=0.05)


def test_positions_of_an_images_own_size_are_taken_as_they_are_and_resized_for_others(rng):
  """At twice the side, positions made of constant fields stay what they are."""
  backbone = _VIT()
  params = jax.jit(backbone.init)(jax.random.key(0), jnp.zeros((1, 24, 24, 3)))["params"]
  level = rng.standard_normal((1, 1, 16)).astype(np.float32)
  flat = {**params, "pos_embed": jnp.broadcast_to(level, params["pos_embed"].shape)}
  images = jnp.zeros((1, 48, 32, 3))
  tokens = jax.jit(functools.partial(backbone.apply, pooled=False))({"params": flat}, images)
  assert tokens.shape == (1, 12, 8, 16)
  np.testing.assert_allclose(tokens, jnp.broadcast_to(tokens[:, :1, :1], tokens.shape), atol=1e-4)
