"""Published weights in and out: safetensors files that name their tensors as timm does."""

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
from udh_jax.models.inputs import Inputs, labels_of_tag, read_inputs
from udh_jax.models.registry import create_backbone
from udh_jax.records import require_fields

HUB = "hf-hub:"
WEIGHTS, CONFIG = "model.safetensors", "config.json"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
# Tensors that only one kind of architecture has: to tell whose weights were given instead.
_SIGNS = (
  ("reg_token", "a DINOv2 with registers"),
  ("blocks.0.ls1.gamma", "a DINOv2"),
  ("attn_pool.latent", "a SigLIP"),
  ("norm_pre.weight", "a CLIP"),
  ("cls_token", "a vision transformer"),
  ("stages.0.blocks.0.conv_dw.weight", "a ConvNeXt"),
  ("layer3.22.conv3.weight", "resnet101 or deeper"),
  ("layer1.0.conv3.weight", "resnet50 or deeper"),
  ("layer1.0.conv1.weight", "resnet18 or resnet34"),
  ("blocks.1.0.se.conv_reduce.weight", "an EfficientNet or MobileNetV3"),
  ("conv_stem.weight", "mobilenetv2_100, efficientnet_lite0 or a relative"),
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
    image_size: Side in pixels of the squares the weights were evaluated on.
    crop: Part of a picture's short side that this square shows, from its middle.
    interpolation: How it was resized; see `udh_jax.models.inputs.INTERPOLATIONS`.
    source: Path or hub address the weights were read from.
    sha256: Of the safetensors file.
    labels_used: What the weights were trained with: the file's own words, "none", or "unknown".
  """

  variables: dict[str, Any]
  padding: str
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  image_size: int
  crop: float
  interpolation: str
  source: str
  sha256: str
  labels_used: str


def load_weights(
  backbone_name: str, path: str | os.PathLike, *, num_classes: int = 0
) -> Pretrained:
  """Reads published weights of a backbone, in timm's naming.

  The header of the file is read first: its fields ``architecture``, ``padding``, ``input_mean`` and
  ``input_std`` (three numbers separated by commas), ``input_size``, ``crop_pct``,
  ``interpolation`` and ``pretrained_on``; then timm's ``config.json`` of the hub repository, or
  beside a local file. Where neither says, it is ImageNet's mean and deviation, the architecture's
  own size and padding ("same" for a file or repository whose name starts with ``tf_``), and timm's
  crop and interpolation.

  Args:
    backbone_name: See `create_backbone`.
    path: A safetensors file, a folder that holds it as ``model.safetensors``, or
      ``hf-hub:owner/name`` to download it from the Hugging Face hub.
    num_classes: 0 leaves the published classifier out; otherwise its number of classes.

  Returns:
    A `Pretrained`.

  Raises:
    InputError: If a file is missing or damaged, a field has no valid value, or a tensor is missing,
      extra, of the wrong shape or not finite; the line names it.
  """
  backbone = create_backbone(backbone_name)  # refuses an unknown name before a download
  require(num_classes >= 0, f"num_classes is {num_classes}; give 0 for features only.")
  source = str(path)
  file, config_file = _find(source)
  tensors, header = _read(file)
  config = None
  if config_file is not None:
    config = require_fields(config_file, read_json(config_file), {})
  for facts in (header, config or {}):
    _require_architecture(facts.get("architecture", backbone_name), backbone_name, source)
  if config is not None:
    config = require_fields(config_file, config.get("pretrained_cfg", config), {})
  repository = source.rsplit("/", 1)[-1]
  otherwise = "same" if _padded_as_tensorflow(source) else backbone.padding
  padding = header.get("padding", otherwise)
  require(
    padding in PADDINGS,
    f"{source}: the field padding of its header is {padding!r}; choose one of "
    f"{', '.join(PADDINGS)}.",
  )
  timms = Inputs(IMAGENET_MEAN, IMAGENET_STD, backbone.image_size, 0.875, "bicubic")
  inputs = read_inputs(header, config, file=source, config_file=config_file, default=timms)
  tag = str((config or {}).get("tag") or "")
  if not tag and source.startswith(HUB):
    tag = repository.partition(".")[2]
  return Pretrained(
    variables=_variables(backbone_name, tensors, num_classes, source),
    padding=padding,
    **inputs._asdict(),
    source=source,
    sha256=_sha256(file),
    labels_used=header.get("pretrained_on", labels_of_tag(tag)),
  )


def require_there(source: str) -> None:
  """Refuses weights on this machine that are not there.

  Raises:
    InputError: If so.
  """
  if not source.startswith(HUB):
    _local_file(source)


def _local_file(source: str) -> pathlib.Path:
  file = _local(source)
  require(
    file.is_file(),
    f"weights {file} do not exist; give a safetensors file, a folder with {WEIGHTS}, or {HUB}...",
  )
  return file


def _find(source):
  """The safetensors file, and timm's ``config.json`` or None."""
  if source.startswith(HUB):
    return download(source, WEIGHTS), download(source, CONFIG)
  file = _local_file(source)
  beside = file.with_name(CONFIG)
  # Others name a file so too: an encoder's folder has one.
  found = read_json(beside) if beside.is_file() else None
  is_timms = isinstance(found, dict) and found.keys() & {"architecture", "pretrained_cfg"}
  return file, beside if is_timms else None


def local_digest(path: str | os.PathLike) -> str:
  """SHA-256 of a weights file and of what `load_weights` reads besides.

  That is a config.json beside it, and a name that starts with ``tf_``.

  Args:
    path: As of `load_weights`.

  Returns:
    Hexadecimal; of the weights file alone where nothing else is read. "" for one of the hub, and
    where there is none.

  Raises:
    InputError: If the config.json is damaged.
  """
  if str(path).startswith(HUB) or not _local(path).is_file():
    return ""
  file, config_file = _find(str(path))
  read = [_sha256(file)]
  if config_file is not None:
    read.append(_sha256(config_file))
  if _padded_as_tensorflow(str(path)):
    read.append("tf_")
  return read[0] if len(read) == 1 else hashlib.sha256("".join(read).encode()).hexdigest()


def _padded_as_tensorflow(source: str) -> bool:
  """Whether a file or repository is called as timm's ports of TensorFlow's weights are."""
  return source.rsplit("/", 1)[-1].startswith("tf_")


def _local(path: str | os.PathLike) -> pathlib.Path:
  """The file that a path stands for, which may be its folder; there or not."""
  file = pathlib.Path(path)
  return file / WEIGHTS if file.is_dir() else file


def _require_architecture(architecture, backbone_name, source):
  """Weights of one architecture for both: CLIP's with the exact GELU and with the quick one."""

  def tensors_of(name):
    return str(name).partition(".")[0].replace("_quickgelu", "")

  require(
    tensors_of(architecture) == tensors_of(backbone_name),
    f"{source} holds weights of {architecture}, not of {backbone_name}; give the others or set "
    "the backbone to it.",
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


@functools.lru_cache(maxsize=64)
def _expected(backbone_name, num_classes):
  """Place of each variable in the tree, and its shape."""
  module = create_backbone(backbone_name)
  if num_classes:
    module = Classifier(module, num_classes)
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  shapes = jax.eval_shape(module.init, jax.random.key(0), images)
  return {place: leaf.shape for place, leaf in traverse_util.flatten_dict(shapes).items()}


def timm_shapes(backbone_name: str, num_classes: int = 0) -> dict[str, tuple[int, ...]]:
  """Name and shape of each tensor in a file of weights, as timm has them.

  Args:
    backbone_name: See `create_backbone`.
    num_classes: Of the classifier; 0 for none.
  """
  return {
    _timm_name(backbone_name, place): _torch_shape(place, shape)
    for place, shape in _expected(backbone_name, num_classes).items()
  }


def _timm_name(backbone_name, place):
  *modules, leaf = place[1:]
  if modules and modules[0] == "backbone":
    modules = modules[1:]
  elif modules == ["head"]:
    modules = [create_backbone(backbone_name).classifier]
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
  ignored = f"{create_backbone(backbone_name).classifier}."
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


def _sha256(file):
  with open(file, "rb") as opened:
    return hashlib.file_digest(opened, "sha256").hexdigest()
