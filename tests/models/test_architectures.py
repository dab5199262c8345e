"""Each architecture against a plain numpy forward pass on made tensors in timm's naming."""

import itertools
import math

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.special import erf, softmax

from udh_jax.errors import InputError
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import load_weights

# Block counts, and the convolutions of a block: (window, whether it has the stride, widening).
RESNETS = {
  "resnet18": ((2, 2, 2, 2), ((3, True, 1), (3, False, 1))),
  "resnet50": ((3, 4, 6, 3), ((1, False, 1), (3, True, 1), (1, False, 4))),
}


class Tensors(dict):
  """Makes each tensor when it is first asked for, so that the oracle alone says which there are."""

  def __init__(self, rng):
    self.rng = rng

  def get_or_make(self, name, shape, scale=None):
    if name not in self:
      scale = 1 / math.sqrt(max(1, math.prod(shape[1:]))) if scale is None else scale
      self[name] = (self.rng.standard_normal(shape) * scale).astype(np.float32)
    assert self[name].shape == tuple(shape)
    return self[name].astype(np.float64)


def pad(images, window, stride, padding, value=0.0):
  """Both conventions, from their own definitions: output ceil(n / stride), or (window - 1) / 2."""
  sides = []
  for size in images.shape[2:]:
    if padding == "symmetric":
      sides.append(((window - 1) // 2,) * 2)
    else:
      last = (math.ceil(size / stride) - 1) * stride + window  # first position behind the last one
      total = max(0, last - size)
      sides.append((total // 2, total - total // 2))
  return np.pad(images, ((0, 0), (0, 0), *sides), constant_values=value)


def windows(images, window, stride):
  views = np.lib.stride_tricks.sliding_window_view(images, (window, window), axis=(2, 3))
  return views[:, :, ::stride, ::stride]  # [b, c, h, w, window, window]


def conv_norm(tensors, conv, norm, images, channels, window, stride, padding, groups=1):
  inputs = images.shape[1]
  kernel = tensors.get_or_make(f"{conv}.weight", (channels, inputs // groups, window, window))
  views = windows(pad(images, window, stride, padding), window, stride)
  if groups == 1:
    result = np.einsum("bchwij,dcij->bdhw", views, kernel, optimize=True)
  else:
    result = np.einsum("bchwij,cij->bchw", views, kernel[:, 0], optimize=True)

  def make(name, low, high):
    if f"{norm}.{name}" not in tensors:
      values = tensors.rng.uniform(low, high, channels).astype(np.float32)
      tensors[f"{norm}.{name}"] = values
    return tensors[f"{norm}.{name}"].astype(np.float64)[:, None, None]

  mean, variance = make("running_mean", -0.2, 0.2), make("running_var", 0.5, 1.5)
  result = (result - mean) / np.sqrt(variance + 1e-5)
  tensors[f"{norm}.num_batches_tracked"] = np.array(7)
  return result * make("weight", 0.8, 1.6) + make("bias", -0.2, 0.2)


def relu(values):
  return np.maximum(values, 0)


def resnet(tensors, images, name, padding):
  blocks, plan = RESNETS[name]
  images = relu(conv_norm(tensors, "conv1", "bn1", images, 64, 7, 2, padding))
  images = windows(pad(images, 3, 2, padding, -np.inf), 3, 2).max(axis=(4, 5))
  for stage, block in ((s, b) for s in range(4) for b in range(blocks[s])):
    prefix, width = f"layer{stage + 1}.{block}", 64 * 2**stage
    step = 2 if stage and not block else 1
    hidden = images
    for number, (window, strided, widening) in enumerate(plan, start=1):
      hidden = relu(hidden) if number > 1 else hidden
      names = f"{prefix}.conv{number}", f"{prefix}.bn{number}"
      stride = step if strided else 1
      hidden = conv_norm(tensors, *names, hidden, width * widening, window, stride, padding)
    if hidden.shape != images.shape:
      names = f"{prefix}.downsample.0", f"{prefix}.downsample.1"
      images = conv_norm(tensors, *names, images, hidden.shape[1], 1, step, padding)
    images = relu(hidden + images)
  return images.mean(axis=(2, 3))


def mobilenet(tensors, images, _, padding):
  def relu6(values):
    return np.clip(values, 0, 6)

  images = relu6(conv_norm(tensors, "conv_stem", "bn1", images, 32, 3, 2, padding))
  plan = (16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)
  for stage, (channels, blocks, first_stride) in enumerate(plan):
    for block in range(blocks):
      prefix, hidden, stride = f"blocks.{stage}.{block}.", images, 1 if block else first_stride
      if stage:
        wide = 6 * images.shape[1]
        hidden = conv_norm(tensors, f"{prefix}conv_pw", f"{prefix}bn1", hidden, wide, 1, 1, padding)
        hidden = relu6(hidden)
      wide = hidden.shape[1]
      names = f"{prefix}conv_dw", f"{prefix}bn{2 if stage else 1}"
      hidden = relu6(conv_norm(tensors, *names, hidden, wide, 3, stride, padding, groups=wide))
      names = (
        (f"{prefix}conv_pwl", f"{prefix}bn3") if stage else (f"{prefix}conv_pw", f"{prefix}bn2")
      )
      hidden = conv_norm(tensors, *names, hidden, channels, 1, 1, padding)
      images = hidden + images if hidden.shape == images.shape else hidden
  return relu6(conv_norm(tensors, "conv_head", "bn2", images, 1280, 1, 1, padding)).mean(
    axis=(2, 3)
  )


def linear(tensors, name, values, width):
  weight = tensors.get_or_make(f"{name}.weight", (width, values.shape[-1]))
  return values @ weight.T + tensors.get_or_make(f"{name}.bias", (width,), 0.1)


def layer_norm(tensors, name, values):
  centred = values - values.mean(-1, keepdims=True)
  scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
  weight = tensors.get_or_make(f"{name}.weight", values.shape[-1:], 1.0)
  return scaled * weight + tensors.get_or_make(f"{name}.bias", values.shape[-1:], 0.1)


def bicubic_matrix(old, new):
  """Weights of Pillow's and PyTorch's antialiased bicubic resize along one axis, ``[new, old]``."""
  scale = old / new
  stretch = max(scale, 1.0)
  matrix = np.zeros((new, old))
  for i, j in itertools.product(range(new), range(old)):
    x = abs(j + 0.5 - (i + 0.5) * scale) / stretch
    if x < 1:
      matrix[i, j] = 1.5 * x**3 - 2.5 * x**2 + 1
    elif x < 2:
      matrix[i, j] = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
  return matrix / matrix.sum(axis=1, keepdims=True)


def vit_tokens(tensors, images):
  batch, _, height, width = images.shape
  rows, columns = height // 16, width // 16
  kernel = tensors.get_or_make("patch_embed.proj.weight", (384, 3, 16, 16))
  patches = images.reshape(batch, 3, rows, 16, columns, 16)
  tokens = np.einsum("bkriqj,dkij->brqd", patches, kernel, optimize=True)
  tokens = tokens.reshape(batch, -1, 384)
  tokens = tokens + tensors.get_or_make("patch_embed.proj.bias", (384,), 0.1)
  position = tensors.get_or_make("pos_embed", (1, 197, 384), 0.5)[0]
  square = position[1:].reshape(14, 14, 384)
  square = np.einsum(
    "ri,qj,ijd->rqd", bicubic_matrix(14, rows), bicubic_matrix(14, columns), square
  )
  token = np.broadcast_to(tensors.get_or_make("cls_token", (1, 1, 384), 0.5), (batch, 1, 384))
  tokens = np.concatenate([token, tokens], axis=1)
  tokens = tokens + np.concatenate([position[:1], square.reshape(-1, 384)])
  for block in range(12):
    prefix = f"blocks.{block}."
    hidden = layer_norm(tensors, f"{prefix}norm1", tokens)
    hidden = linear(tensors, f"{prefix}attn.qkv", hidden, 3 * 384)
    query, key, value = hidden.reshape(batch, -1, 3, 6, 64).transpose(2, 0, 3, 1, 4)
    attention = softmax(query @ key.swapaxes(-1, -2) / 8.0, axis=-1)
    mixed = (attention @ value).swapaxes(1, 2).reshape(tokens.shape)
    tokens = tokens + linear(tensors, f"{prefix}attn.proj", mixed, 384)
    hidden = layer_norm(tensors, f"{prefix}norm2", tokens)
    hidden = linear(tensors, f"{prefix}mlp.fc1", hidden, 4 * 384)
    hidden = hidden * 0.5 * (1 + erf(hidden / np.sqrt(2)))
    tokens = tokens + linear(tensors, f"{prefix}mlp.fc2", hidden, 384)
  return layer_norm(tensors, "norm", tokens)


def vit(tensors, images, *_):
  return vit_tokens(tensors, images)[:, 0]


@pytest.mark.parametrize(
  ("name", "oracle", "size", "padding"),
  [
    ("mobilenetv2_100", mobilenet, (64, 40), "symmetric"),
    ("mobilenetv2_100", mobilenet, (33, 50), "same"),
    ("resnet18", resnet, (64, 40), "symmetric"),
    ("resnet18", resnet, (33, 50), "same"),
    pytest.param("resnet50", resnet, (40, 33), "symmetric", marks=pytest.mark.slow),
    pytest.param("vit_small_patch16_224", vit, (224, 224), "symmetric", marks=pytest.mark.slow),
    ("vit_small_patch16_224", vit, (48, 80), "symmetric"),
  ],
)
def test_published_tensors_give_the_features_of_a_plain_forward_pass(
  rng, tmp_path, name, oracle, size, padding
):
  images = rng.standard_normal((2, *size, 3)).astype(np.float32)
  tensors = Tensors(rng)
  expected = oracle(tensors, images.transpose(0, 3, 1, 2).astype(np.float64), name, padding)
  save_file(tensors, tmp_path / "model.safetensors", metadata={"padding": padding})
  pretrained = load_weights(name, tmp_path / "model.safetensors")
  backbone = create_backbone(name, padding=pretrained.padding)
  features = jax.jit(backbone.apply)(pretrained.variables, images)
  assert features.shape == (2, backbone.feature_dim)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(features / scale, expected / scale, atol=2e-5)
  assert np.ptp(expected, axis=0).max() > 0.01 * scale  # the images told apart, not the biases


@pytest.mark.parametrize(
  ("name", "stride"),
  [
    pytest.param("mobilenetv2_100", 32, marks=pytest.mark.slow),
    ("resnet18", 32),
    ("small_convnet", 4),
  ],
)
def test_features_are_the_mean_of_the_feature_map(rng, name, stride):
  images = rng.standard_normal((2, 2 * stride, 3 * stride, 3)).astype(np.float32)
  backbone = create_backbone(name)
  variables = random_variables(backbone, rng)
  features, feature_map = jax.jit(
    lambda v, x: [backbone.apply(v, x, pooled=pooled) for pooled in (True, False)]
  )(variables, images)
  assert feature_map.shape == (2, 2, 3, backbone.feature_dim)
  np.testing.assert_allclose(np.mean(feature_map, axis=(1, 2)), features, rtol=1e-4, atol=1e-5)
  coarse = create_backbone(name, dtype="bfloat16")
  assert jax.eval_shape(lambda v, x: coarse.apply(v, x, pooled=False), variables, images).dtype == (
    np.float32
  )


def test_the_feature_map_of_a_transformer_is_its_patch_tokens_in_their_places(rng, tmp_path):
  images = rng.standard_normal((2, 48, 32, 3)).astype(np.float32)
  tensors = Tensors(rng)
  expected = vit_tokens(tensors, images.transpose(0, 3, 1, 2).astype(np.float64))
  expected = expected[:, 1:].reshape(2, 3, 2, 384)
  save_file(tensors, tmp_path / "model.safetensors", metadata={"padding": "symmetric"})
  variables = load_weights("vit_small_patch16_224", tmp_path / "model.safetensors").variables
  backbone = create_backbone("vit_small_patch16_224")
  found = jax.jit(lambda v, x: backbone.apply(v, x, pooled=False))(variables, images)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)


def random_variables(backbone, rng):
  """Start values without compiling an initialisation: kernels by their inputs, the rest near 1."""
  image = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
  shapes = jax.eval_shape(backbone.init, jax.random.key(0), image)

  def draw(leaf):
    if len(leaf.shape) < 2:
      return rng.uniform(0.8, 1.2, leaf.shape).astype(np.float32)
    fan_in = math.prod(leaf.shape[:-1])
    return (rng.standard_normal(leaf.shape) / math.sqrt(fan_in)).astype(np.float32)

  return jax.tree.map(draw, shapes)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param("mobilenetv2_100", marks=pytest.mark.slow),
    "vit_small_patch16_224",
    "small_convnet",
  ],
)
def test_bfloat16_is_close_to_float32_and_returns_float32(rng, name):
  images = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
  fewer = {"depth": 2} if name.startswith("vit") else {}  # as many blocks as show it
  backbone = create_backbone(name).clone(**fewer)
  variables = random_variables(backbone, rng)
  exact = jax.jit(backbone.apply)(variables, images)
  coarse = create_backbone(name, dtype="bfloat16").clone(**fewer)
  coarse = jax.jit(coarse.apply)(variables, images)
  assert exact.dtype == coarse.dtype == np.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
  exact, coarse = np.asarray(exact), np.asarray(coarse)
  assert not np.array_equal(exact, coarse)
  assert np.linalg.norm(exact - coarse) < 0.05 * np.linalg.norm(exact)


def test_running_statistics_stay_and_images_of_a_batch_do_not_interact(rng):
  images = rng.standard_normal((3, 32, 32, 3)).astype(np.float32)
  backbone = create_backbone("mobilenetv2_100")
  variables = random_variables(backbone, rng)
  apply = jax.jit(lambda v, x: backbone.apply(v, x, mutable=["batch_stats"]))
  features, after = apply(variables, images)
  jax.tree.map(np.testing.assert_array_equal, after["batch_stats"], variables["batch_stats"])
  images[[0, 2]] = rng.standard_normal((2, 32, 32, 3))
  beside_others, _ = apply(variables, images)
  np.testing.assert_array_equal(features[1], beside_others[1])
  assert not np.isclose(features[::2], beside_others[::2]).all()


@pytest.mark.slow
def test_gradient_does_not_reach_across_images_and_leaves_the_statistics_alone(rng):
  images = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
  backbone = create_backbone("resnet18")
  variables = random_variables(backbone, rng)

  def first_features(images, statistics):
    changed = variables | {"batch_stats": statistics}
    return (backbone.apply(changed, images)[0] ** 2).sum()

  reach, statistics = jax.jit(jax.grad(first_features, argnums=(0, 1)))(
    images, variables["batch_stats"]
  )
  assert np.abs(reach[0]).max() > 0
  assert not np.any(reach[1])
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(statistics))


def test_transformer_refuses_sides_that_patches_do_not_fill():
  backbone = create_backbone("vit_small_patch16_224")
  with pytest.raises(InputError, match=r"100 x 96.*16"):
    jax.eval_shape(backbone.init, jax.random.key(0), np.zeros((1, 100, 96, 3), np.float32))
