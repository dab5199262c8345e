import functools
import hashlib
import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load, load_file, save, save_file

from udh_jax.errors import InputError
from udh_jax.models.convnet import SmallConvNet
from udh_jax.models.heads import Classifier
from udh_jax.models.inputs import labels_of_tag
from udh_jax.models.registry import BACKBONES, create_backbone
from udh_jax.models.vit import VisionTransformer
from udh_jax.models.weights import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  load_weights,
  local_digest,
  ordered,
  save_weights,
)


def random_variables(module, seed=0):
  """Every leaf different, so that one in another's place is noticed."""
  shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), dict(shapes)
  )


@pytest.fixture
def saved(tmp_path):
  """A file of resnet18 with a classifier of 5 classes, its tensors and what they came from."""
  variables = random_variables(Classifier(create_backbone("resnet18"), 5))
  path = tmp_path / "resnet18.safetensors"
  save_weights("resnet18", variables, path)
  return path, load_file(path), variables


def assert_same(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


# The others by small ones of their kind (test_registry.py) and in the slow tests (test_timm.py).
@pytest.mark.parametrize(
  "name", ["efficientnet_b0", "mobilenetv2_100", "resnet18", "small_convnet"]
)
def test_what_is_saved_is_loaded(name, tmp_path):
  variables = random_variables(create_backbone(name))
  save_weights(name, variables, tmp_path / "w.safetensors", {"padding": "same"})
  pretrained = load_weights(name, tmp_path / "w.safetensors")
  assert_same(pretrained.variables, variables)
  assert pretrained.padding == "same"
  assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_published_classifier_is_left_out_or_loaded(saved):
  path, tensors, variables = saved
  np.testing.assert_array_equal(tensors["fc.weight"], variables["params"]["head"]["kernel"].T)
  bare = load_weights("resnet18", path).variables
  assert_same(bare, {kind: tree["backbone"] for kind, tree in variables.items()})
  assert_same(load_weights("resnet18", path, num_classes=5).variables, variables)
  with pytest.raises(InputError, match=r"fc.weight is \(5, 512\), expected \(7, 512\)"):
    load_weights("resnet18", path, num_classes=7)


def test_header_overrides_the_defaults(saved):
  path, tensors, _ = saved
  plain = load_weights("resnet18", path)
  assert (plain.padding, plain.mean, plain.std) == ("symmetric", IMAGENET_MEAN, IMAGENET_STD)
  assert plain.labels_used == "unknown"
  assert plain.source == str(path)
  assert plain.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  header = {"padding": "same", "input_mean": "0.5,0.25,0.5", "input_std": "0.5,0.5,1"}
  save_file(tensors, path, metadata=header | {"pretrained_on": "none"})
  told = load_weights("resnet18", path)
  assert (told.padding, told.mean, told.std) == ("same", (0.5, 0.25, 0.5), (0.5, 0.5, 1.0))
  assert told.labels_used == "none"
  save_file(tensors, path.with_name("tf_resnet18.safetensors"))
  assert load_weights("resnet18", path.with_name("tf_resnet18.safetensors")).padding == "same"


def test_header_tells_size_crop_and_interpolation(saved):
  path, tensors, _ = saved
  plain = load_weights("resnet18", path)
  assert (plain.image_size, plain.crop, plain.interpolation) == (224, 0.875, "bicubic")
  header = {"input_size": "288", "crop_pct": "0.95", "interpolation": "bilinear"}
  save_file(tensors, path, metadata=header)
  told = load_weights("resnet18", path)
  assert (told.image_size, told.crop, told.interpolation) == (288, 0.95, "bilinear")
  save_file(tensors, path, metadata={"input_size": "3,256,256"})
  assert load_weights("resnet18", path).image_size == 256


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("input_mean", "0.5,0.5"),
    ("input_mean", "0.5;0.5;0.5"),
    ("input_mean", ""),
    ("input_mean", "nan,0.5,0.5"),
    ("input_std", "0.5,inf,0.5"),
    ("input_std", "0.5,0,0.5"),
    ("input_std", "1e999,1,1"),
    ("input_size", "big"),
    ("input_size", "0"),
    ("input_size", "3,224"),
    ("input_size", "1,224,224"),
    ("crop_pct", "0"),
    ("crop_pct", "87.5"),
    ("crop_pct", "nan"),
    ("interpolation", "random"),
    ("padding", "valid"),
  ],
)
def test_a_damaged_header_is_one_line_that_names_file_and_field(saved, field, value):
  path, tensors, _ = saved
  save_file(tensors, path, metadata={field: value})
  with pytest.raises(InputError) as error:
    load_weights("resnet18", path)
  line = str(error.value)
  assert str(path) in line and field in line and repr(value) in line
  assert "\n" not in line


PRETRAINED = {"mean": [0.1] * 3, "std": [0.2] * 3, "tag": "a1_in1k"}


@pytest.mark.parametrize(
  ("content", "names"),
  [
    ('{"architecture": "resnet18", "pretrained_cfg": {"mean"', "config.json"),
    ('{"architecture": "resnet18", "pretrained_cfg": []}', "expected an object"),
    ('{"architecture": "resnet18"}', "mean"),
    ({"mean": [0.1] * 3}, "std"),
    ({"mean": None, "std": [0.2] * 3}, "mean"),
    ({"mean": ["a", "b", "c"], "std": [0.2] * 3}, "mean"),
    ({"mean": {"r": 1}, "std": [0.2] * 3}, "mean"),
    ({"mean": [True] * 3, "std": [0.2] * 3}, "mean"),
    ({"mean": [0.1] * 3, "std": [-0.2] * 3}, "std"),
    (PRETRAINED | {"input_size": [3, 224]}, "input_size"),
    (PRETRAINED | {"input_size": [3, 224.5, 224.5]}, "input_size"),
    (PRETRAINED | {"crop_pct": "full"}, "crop_pct"),
    (PRETRAINED | {"interpolation": ["bicubic"]}, "interpolation"),
  ],
)
def test_a_damaged_config_is_one_line_that_names_file_and_field(saved, content, names):
  path, _, _ = saved
  config = path.with_name("config.json")
  if isinstance(content, dict):
    content = json.dumps({"architecture": "resnet18", "pretrained_cfg": content})
  config.write_text(content)
  with pytest.raises(InputError) as error:
    load_weights("resnet18", path)
  line = str(error.value)
  assert str(config) in line and names in line
  assert "\n" not in line


def test_a_config_beside_a_local_file_counts_where_it_is_timms(saved):
  path, tensors, variables = saved
  config = path.with_name("config.json")
  config.write_text(json.dumps({"format": "another program's", "mean": [9] * 3}))
  assert load_weights("resnet18", path).mean == IMAGENET_MEAN
  config.write_text("[]")
  assert load_weights("resnet18", path).mean == IMAGENET_MEAN
  timms = PRETRAINED | {"input_size": [3, 288, 288], "crop_pct": 1, "interpolation": "bilinear"}
  config.write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": timms}))
  bare = path.with_name("model.safetensors")
  save_file(tensors, bare)
  for source in (bare, bare.parent):
    found = load_weights("resnet18", source, num_classes=5)
    assert_same(found.variables, variables)
    assert (found.mean, found.std) == ((0.1,) * 3, (0.2,) * 3)
    assert (found.image_size, found.crop, found.interpolation) == (288, 1.0, "bilinear")
    assert found.labels_used == "ImageNet-1k labels"
  save_file(tensors, bare, metadata={"input_mean": "0.3,0.3,0.3"})
  found = load_weights("resnet18", bare)
  assert (found.mean, found.std) == ((0.3,) * 3, (0.2,) * 3)  # the header first
  config.write_text(json.dumps({"architecture": "resnet50", "pretrained_cfg": timms}))
  with pytest.raises(InputError, match="weights of resnet50, not of resnet18"):
    load_weights("resnet18", bare)


@pytest.mark.parametrize(
  ("tag", "labels"),
  [
    ("lvd142m", "none"),
    ("dino", "none"),
    ("mae", "none"),
    ("a1_in1k", "ImageNet-1k labels"),
    ("fcmae_ft_in1k", "ImageNet-1k labels"),
    ("augreg_in21k", "ImageNet-21k labels"),
    ("openai", "texts of image-text pairs"),
    ("webli", "texts of image-text pairs"),
    ("v2_webli", "texts of image-text pairs"),
    (
      "laion2b_ft_in12k_in1k",
      "texts of image-text pairs, ImageNet-12k labels, ImageNet-1k labels",
    ),
    ("ns_jft_in1k", "JFT-300M labels, ImageNet-1k labels"),
    ("", "unknown"),
    ("mine", "unknown"),
  ],
)
def test_labels_behind_weights_are_told_by_timms_tag(tag, labels):
  assert labels_of_tag(tag) == labels


def test_every_byte_of_a_header_may_be_damaged(monkeypatch, tmp_path):
  """A header is read as it was, or refused in one line; nothing else comes out."""
  monkeypatch.setitem(BACKBONES, "tiny", lambda **options: SmallConvNet(widths=(8,), **options))
  path = tmp_path / "w.safetensors"
  variables = random_variables(create_backbone("tiny"))
  save_weights("tiny", variables, path, {"input_mean": "0.5,0.5,0.5", "padding": "same"})
  good = path.read_bytes()
  length = 8 + int.from_bytes(good[:8], "little")
  refused = 0
  flips = [(place, flip) for place in range(0, length, 7) for flip in (1, 0x80)]
  for place, flip in flips:
    path.write_bytes(good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :])
    try:
      load_weights("tiny", path)
    except InputError as error:
      refused += 1
      assert str(path) in str(error) and "\n" not in str(error)
  assert refused > len(flips) / 2  # the others are in words that no one reads
  for cut in (0, 7, 8, 9, length - 1, length, len(good) - 1):
    path.write_bytes(good[:cut])
    with pytest.raises(InputError, match=re.escape(str(path))):
      load_weights("tiny", path)


def test_counters_are_ignored_and_half_precision_is_widened(saved):
  path, tensors, variables = saved
  tensors["bn1.num_batches_tracked"] = np.array(3)
  tensors["conv1.weight"] = tensors["conv1.weight"].astype(ml_dtypes.bfloat16)
  save_file(tensors, path)
  kernel = load_weights("resnet18", path).variables["params"]["conv1"]["kernel"]
  assert kernel.dtype == np.float32
  np.testing.assert_allclose(kernel, variables["params"]["backbone"]["conv1"]["kernel"], rtol=0.01)


def test_every_misfit_is_named_with_its_count(saved):
  path, tensors, _ = saved
  tensors["layer1.0.conv1.weight"] = np.ones((64, 64, 5, 5), np.float32)
  tensors["layer9.weight"] = np.ones(1, np.float32)
  del tensors["bn1.running_var"], tensors["layer1.0.bn1.bias"]
  save_file(tensors, path)
  with pytest.raises(InputError) as error:
    load_weights("resnet18", path)
  line = str(error.value)
  assert "2 missing: " in line and "bn1.running_var" in line and "layer1.0.bn1.bias" in line
  assert "1 extra: layer9.weight" in line
  assert "layer1.0.conv1.weight is (64, 64, 5, 5), expected (64, 64, 3, 3)" in line
  assert "\n" not in line


def test_the_order_of_metadata_does_not_show_in_the_file():
  tensors = {"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.float32)}
  header = {f"key{number}": str(number) for number in range(8)}
  written = set()
  for names in (list(header), list(header)[::-1]):
    # As the library might write them: it keeps no order.
    text = json.dumps({"__metadata__": {name: header[name] for name in names}})
    data = save(tensors)
    length = int.from_bytes(data[:8], "little")
    text = text[:-1] + "," + data[8 : 8 + length].decode().strip()[1:]
    text += " " * (-len(text) % 8)
    file = len(text).to_bytes(8, "little") + text.encode() + data[8 + length :]
    np.testing.assert_array_equal(load(ordered(file))["a"], tensors["a"])
    written.add(ordered(file))
  assert len(written) == 1


def test_weights_of_another_architecture_are_called_so(saved):
  path, tensors, _ = saved
  with pytest.raises(InputError, match="weights of resnet18, not of mobilenetv2_100"):
    load_weights("mobilenetv2_100", path)
  save_file(tensors, path)
  with pytest.raises(InputError, match=r"another architecture.*resnet18.*not of vit_small"):
    load_weights("vit_small_patch16_224", path)
  with pytest.raises(InputError, match=r"not of resnet50|does not fit resnet50"):
    load_weights("resnet50", path)


def test_not_finite_damaged_and_absent_files_are_refused(saved, tmp_path):
  path, tensors, _ = saved
  tensors["bn1.bias"][3] = np.nan
  save_file(tensors, path)
  with pytest.raises(InputError, match=r"1 tensors hold NaN or infinity: bn1\.bias"):
    load_weights("resnet18", path)
  path.write_bytes(path.read_bytes()[:-1000])
  with pytest.raises(InputError, match="damaged"):
    load_weights("resnet18", path)
  with pytest.raises(InputError, match="do not exist"):
    load_weights("resnet18", tmp_path / "absent.safetensors")
  with pytest.raises(InputError, match="unknown"):
    load_weights("resnet19", path)


def test_variables_of_another_backbone_are_not_written(tmp_path):
  variables = random_variables(create_backbone("small_convnet"))
  with pytest.raises(InputError, match=r"bn1/.* is missing|conv1/.* is missing"):
    save_weights("resnet18", variables, tmp_path / "w.safetensors")
  with pytest.raises(InputError, match="absent"):
    save_weights("small_convnet", variables, tmp_path / "absent" / "w.safetensors")
  assert not list(tmp_path.iterdir())


def test_hub_address_downloads_weights_and_configuration(saved, monkeypatch):
  path, _, variables = saved
  config = path.with_name("config.json")
  config.write_text(
    json.dumps({"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3, "tag": "a1_in1k"}})
  )
  files = {"model.safetensors": str(path), "config.json": str(config)}
  monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, name: files[name])
  pretrained = load_weights("resnet18", "hf-hub:timm/resnet18.a1_in1k", num_classes=5)
  assert_same(pretrained.variables, variables)
  assert (pretrained.mean, pretrained.std) == ((0.1,) * 3, (0.2,) * 3)
  assert pretrained.labels_used == "ImageNet-1k labels"
  assert pretrained.source == "hf-hub:timm/resnet18.a1_in1k"


def test_the_repositorys_name_tells_the_labels_where_its_config_does_not(saved, monkeypatch):
  path, _, _ = saved
  config = path.with_name("config.json")
  config.write_text(json.dumps({"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}))
  files = {"model.safetensors": str(path), "config.json": str(config)}
  monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repository, name: files[name])
  assert load_weights("resnet18", "hf-hub:timm/resnet18.dino").labels_used == "none"


def test_weights_of_clip_serve_both_networks_with_their_own_gelu(monkeypatch, tmp_path):
  tiny = functools.partial(
    VisionTransformer, patch=4, width=8, depth=1, heads=1, image_size=8, pre_norm=True
  )
  for name, gelu in (("clip_8", "gelu"), ("clip_quickgelu_8", "quick_gelu")):
    monkeypatch.setitem(BACKBONES, name, functools.partial(tiny, activation=gelu))
  monkeypatch.setitem(BACKBONES, "other_8", tiny)
  variables = jax.tree.map(
    lambda leaf: np.ones(leaf.shape, np.float32),
    dict(jax.eval_shape(tiny().init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))),
  )
  save_weights("clip_8", variables, tmp_path / "w.safetensors")
  assert_same(load_weights("clip_quickgelu_8", tmp_path / "w.safetensors").variables, variables)
  with pytest.raises(InputError, match="weights of clip_8, not of other_8"):
    load_weights("other_8", tmp_path / "w.safetensors")


def test_failed_download_is_one_clear_line(monkeypatch):
  def refuse(*_):
    raise OSError("no route\nto host")

  monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
  with pytest.raises(InputError, match=r"could not be downloaded \(no route\)") as error:
    load_weights("resnet18", "hf-hub:timm/resnet18.a1_in1k")
  assert "\n" not in str(error.value)


def test_the_digest_of_a_local_file_is_that_of_its_bytes(tmp_path):
  file = tmp_path / "model.safetensors"
  assert local_digest(file) == local_digest("hf-hub:owner/name") == ""
  file.write_bytes(b"some")
  assert local_digest(file) == local_digest(tmp_path) == hashlib.sha256(b"some").hexdigest()


def test_the_digest_covers_a_name_that_decides_the_padding(tmp_path):
  found = set()
  for name in ("a", "b", "tf_a", "tf_b"):
    path = tmp_path / f"{name}.safetensors"
    save_weights("small_convnet", random_variables(create_backbone("small_convnet")), path)
    found.add((local_digest(path), load_weights("small_convnet", path).padding))
  assert len(found) == len({digest for digest, _ in found}) == 2


def test_the_digest_covers_the_config_that_is_read_with_a_local_file(tmp_path):
  file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
  file.write_bytes(b"some")
  alone = local_digest(file)
  for other in ([], {"bits": 12}):  # is not timm's, and not read
    config.write_text(json.dumps(other))
    assert local_digest(file) == alone
  found = {alone}
  for mean in (0.1, 0.2):
    config.write_text(json.dumps({"architecture": "resnet18", "pretrained_cfg": {"mean": mean}}))
    found |= {local_digest(file), local_digest(tmp_path)}
  file.write_bytes(b"other")
  assert len(found | {local_digest(file)}) == 4
  config.unlink()
  assert local_digest(file) == hashlib.sha256(b"other").hexdigest()
