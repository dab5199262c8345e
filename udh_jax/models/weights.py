"""Published weights in and out: safetensors files that name their tensors as timm does."""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from udh_jax.errors import InputError, require
from udh_jax.files import read_json, write_atomically
from udh_jax.models.convolution import PADDINGS
from udh_jax.models.heads import Classifier
from udh_jax.models.registry import create_backbone
from udh_jax.records import numbers, require_fields

HUB = "hf-hub:"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What timm calls the classifier of each architecture.
_HEADS = {
  "mobilenetv2_100": "classifier",
  "resnet18": "fc",
  "resnet50": "fc",
  "vit_small_patch16_224": "head",
  "small_convnet": "head",
}
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
# Tensors that only one kind of architecture has: to tell whose weights were given instead.
_SIGNS = (
  ("cls_token", "a vision transformer"),
  ("layer1.0.conv3.weight", "resnet50 or deeper"),
  ("layer1.0.conv1.weight", "resnet18 or resnet34"),
  ("blocks.1.0.se.conv_reduce.weight", "an EfficientNet or MobileNetV3"),
  ("conv_stem.weight", "mobilenetv2_100 or a relative"),
  ("conv.0a.weight", "small_convnet"),
)


class Pretrained(NamedTuple):
  """Weights, and all that has to be known to use and to report them.

  Attributes:
    variables: "params" and "batch_stats" of the backbone, or of `Classifier(backbone,
      num_classes)` if `num_classes` was given.
    padding: "same" (TensorFlow) or "symmetric" (PyTorch): pass it to `create_backbone`.
    mean: Of each channel; images in [0, 1] are normalised as ``(images - mean) / std``.
    std: Likewise.
    source: Path or hub address the weights were read from.
    sha256: Of the safetensors file.
    labels_used: What the weights were trained with: the file's own words, "none", or "unknown".
  """

  variables: dict[str, Any]
  padding: str
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  source: str
  sha256: str
  labels_used: str


def load_weights(
  backbone_name: str, path: str | os.PathLike, *, num_classes: int = 0
) -> Pretrained:
  """Reads published weights of a backbone, in timm's naming.

  The header of the file overrides the defaults (mean and standard deviation of ImageNet, symmetric
  padding, or "same" for a file or repository whose name starts with ``tf_``): its fields
  ``padding``, ``input_mean``, ``input_std`` (three numbers with commas), ``pretrained_on`` and
  ``architecture`` are read. Of a hub repository ``config.json`` gives mean and deviation.

  Args:
    backbone_name: See `create_backbone`.
    path: A safetensors file, or ``hf-hub:owner/name`` to download it from the Hugging Face hub.
    num_classes: 0 leaves the published classifier out; otherwise its number of classes.

  Returns:
    A `Pretrained`.

  Raises:
    InputError: If the file is missing or damaged, or a tensor is missing, extra, of the wrong
      shape or not finite; the line names it.
  """
  create_backbone(backbone_name)  # refuses an unknown name before anything is downloaded
  require(num_classes >= 0, f"num_classes is {num_classes}; give 0 for features only.")
  source = str(path)
  config = {}
  if source.startswith(HUB):
    file = download(source, "model.safetensors")
    file_of_config = download(source, "config.json")
    config = require_fields(file_of_config, read_json(file_of_config), {})
    config = require_fields(file_of_config, config.get("pretrained_cfg", config), {})
  else:
    file = pathlib.Path(path)
    require(file.is_file(), f"weights {file} do not exist; give a safetensors file or {HUB}...")
  tensors, metadata = _read(file)
  architecture = metadata.get("architecture", backbone_name)
  require(
    architecture == backbone_name,
    f"{source} holds weights of {architecture}, not of {backbone_name}; give the others or set "
    "the backbone to it.",
  )
  name = source.rsplit("/", 1)[-1]
  padding = metadata.get("padding", "same" if name.startswith("tf_") else "symmetric")
  require(
    padding in PADDINGS, f"{source}: its header asks for padding {padding!r}; known: {PADDINGS}."
  )
  return Pretrained(
    variables=_variables(backbone_name, tensors, num_classes, source),
    padding=padding,
    mean=_triple("mean", metadata, config, IMAGENET_MEAN, source),
    std=_triple("std", metadata, config, IMAGENET_STD, source),
    source=source,
    sha256=_sha256(file),
    labels_used=metadata.get("pretrained_on", _labels_of_tag(str(config.get("tag", "")))),
  )


def save_weights(
  backbone_name: str,
  variables: Mapping[str, Any],
  path: str | os.PathLike,
  metadata: Mapping[str, str] | None = None,
) -> None:
  """Writes weights in timm's naming; `load_weights` reads them back.

  The file appears whole or not at all.

  Args:
    backbone_name: See `create_backbone`.
    variables: "params" and "batch_stats" of the backbone, or of a `Classifier` on it.
    path: File to write.
    metadata: Further fields of the header; see `load_weights`.

  Raises:
    InputError: If the variables are not those of the backbone, or the folder does not exist.
  """
  from safetensors.numpy import save

  create_backbone(backbone_name)
  path = pathlib.Path(path)
  require(path.parent.is_dir(), f"folder {path.parent} does not exist; create it first.")
  head = variables["params"].get("head") if "backbone" in variables["params"] else None
  num_classes = 0 if head is None else head["kernel"].shape[-1]
  expected = _expected(backbone_name, num_classes)
  given = traverse_util.flatten_dict(dict(variables))
  tensors = {}
  for place, shape in expected.items():
    if place not in given or given[place].shape != shape:
      raise InputError(
        f"variables are not those of {backbone_name}: {'/'.join(place)} should have shape {shape}, "
        f"but {'has ' + str(given[place].shape) if place in given else 'is missing'}."
      )
    array = np.asarray(given[place])
    tensors[_timm_name(backbone_name, place)] = np.ascontiguousarray(_to_torch(place, array))
  header = {"architecture": backbone_name, "naming": "timm"} | dict(metadata or {})
  data = ordered(save(tensors, metadata={key: str(value) for key, value in header.items()}))
  write_atomically(path, lambda file: file.write(data))


def ordered(data: bytes) -> bytes:
  """A safetensors file with its metadata in the order of their names.

  The library writes them in another order in every process, so that equal weights would make
  different files.

  Args:
    data: Of the whole file.
  """
  length = int.from_bytes(data[:8], "little")
  header = json.loads(data[8 : 8 + length])
  header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
  text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
  text += b" " * (-len(text) % 8)  # as the library aligns the tensors
  return len(text).to_bytes(8, "little") + text + data[8 + length :]


@functools.lru_cache(maxsize=16)
def _expected(backbone_name, num_classes):
  """Place of each variable in the tree, and its shape."""
  module = create_backbone(backbone_name)
  if num_classes:
    module = Classifier(module, num_classes)
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  return {place: leaf.shape for place, leaf in traverse_util.flatten_dict(shapes).items()}


def _timm_name(backbone_name, place):
  *modules, leaf = place[1:]
  if modules and modules[0] == "backbone":
    modules = modules[1:]
  elif modules == ["head"]:
    modules = [_HEADS[backbone_name]]
  parts = [re.sub(r"_(\d+)", r".\1", module) for module in modules]
  return ".".join([*parts, _LEAVES.get(leaf, leaf)])


def _to_torch(place, array):
  if place[-1] != "kernel":
    return array
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _from_torch(place, array):
  if place[-1] != "kernel":
    return array
  return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _torch_shape(place, shape):
  return _to_torch(place, np.broadcast_to(0, shape)).shape


def _variables(backbone_name, tensors, num_classes, source):
  """Checks the tensors against the architecture and puts them in its tree."""
  expected = {}
  for place, shape in _expected(backbone_name, num_classes).items():
    expected[_timm_name(backbone_name, place)] = (place, _torch_shape(place, shape))
  ignored = f"{_HEADS[backbone_name]}."
  extra = [
    name
    for name in tensors
    if name not in expected
    and not name.endswith("num_batches_tracked")
    and not (num_classes == 0 and name.startswith(ignored))
  ]
  missing = [name for name in expected if name not in tensors]
  require(
    2 * len(missing) <= len(expected),
    lambda: (
      f"{source} holds weights of another architecture ({_looks_like(tensors)}), not of "
      f"{backbone_name}: {len(missing)} of {len(expected)} tensors are missing ({_few(missing)})."
    ),
  )
  wrong = [
    f"{name} is {tensors[name].shape}, expected {shape}"
    for name, (_, shape) in expected.items()
    if name in tensors and tensors[name].shape != shape
  ]
  problems = [
    f"{len(names)} {what}: {_few(names)}"
    for what, names in (
      ("missing", missing),
      ("extra", extra),
      ("of the wrong shape", wrong),
    )
    if names
  ]
  require(
    not problems,
    lambda: f"{source} does not fit {backbone_name}; tensors {'; '.join(problems)}.",
  )
  bad = [name for name in expected if not np.isfinite(tensors[name]).all()]
  require(not bad, lambda: f"{source}: {len(bad)} tensors hold NaN or infinity: {_few(bad)}.")
  return traverse_util.unflatten_dict(
    {
      place: jnp.asarray(_from_torch(place, tensors[name]), jnp.float32)
      for name, (place, _) in expected.items()
    }
  )


def _few(names):
  return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _looks_like(tensors):
  for name, architecture in _SIGNS:
    if name in tensors:
      return f"by its {name} {architecture}"
  return "its first tensors are " + _few(sorted(tensors))


def _read(file):
  from safetensors import SafetensorError, safe_open

  try:
    # "flax" and not "numpy": the latter does not know bfloat16.
    with safe_open(file, framework="flax") as opened:
      metadata = opened.metadata() or {}
      return {
        name: np.asarray(opened.get_tensor(name), np.float32)
        for name in opened.keys()  # noqa: SIM118
      }, metadata
  except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:  # odd types as well
    raise InputError(
      f"{file} is damaged or not a safetensors file ({error}); fetch it again."
    ) from error


def download(source: str, name: str) -> pathlib.Path:
  """Fetches a file of a repository on the Hugging Face hub, once.

  Args:
    source: ``hf-hub:owner/name``.
    name: Of the file.

  Returns:
    Where it lies now.

  Raises:
    InputError: If it cannot be had.
  """
  from huggingface_hub import hf_hub_download
  from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

  try:
    return pathlib.Path(hf_hub_download(source.removeprefix(HUB), name))
  except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
    reason = str(error).splitlines()[0]
    raise InputError(
      f"{source} could not be downloaded ({reason}); check the name and the connection, or give "
      "a local file."
    ) from error


def _labels_of_tag(tag):
  """timm's tags name the recipe and the data, as in ``dino`` or ``a1_in1k``."""
  if "dino" in tag or "mae" in tag:
    return "none"
  for data, labels in (("in1k", "ImageNet-1k labels"), ("in21k", "ImageNet-21k labels")):
    if data in tag:
      return labels
  return "unknown"


def _triple(name, metadata, config, usual, source):
  """Mean or deviation of each channel: by the file's header, the repository, or as usual."""
  field = f"input_{name}" if f"input_{name}" in metadata else name
  values = metadata[field] if field != name else config.get(name, usual)
  if isinstance(values, str):
    with contextlib.suppress(ValueError):  # refused by what follows
      values = [float(value) for value in values.split(",")]
  kind = numbers(3, positive=name == "std")
  require_fields(source, {field: values}, {field: kind})
  return tuple(map(float, values))


def _sha256(file):
  with open(file, "rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()
