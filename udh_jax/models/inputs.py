"""What a checkpoint says of the pictures its network reads, and of its training."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from udh_jax.errors import InputError, require
from udh_jax.records import brief

INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "box", "hamming")

# Fields of timm's config.json, and what the header of a safetensors file calls them.
_IN_HEADER = {
  "mean": "input_mean",
  "std": "input_std",
  "input_size": "input_size",
  "crop_pct": "crop_pct",
  "interpolation": "interpolation",
}
# timm's tags name the recipe and the data, as in a1_in1k, lvd142m or laion2b_ft_in12k_in1k.
_LABELS = (
  (
    ("openai", "laion", "datacomp", "dfn", "metaclip", "webli", "cc12m", "yfcc15m"),
    "texts of image-text pairs",
  ),
  (("jft",), "JFT-300M labels"),
  (("ig1b", "ig50k"), "Instagram hashtags"),
  (("in21k", "in22k"), "ImageNet-21k labels"),
  (("in12k",), "ImageNet-12k labels"),
  (("in1k",), "ImageNet-1k labels"),
)
_WITHOUT_LABELS = ("dino", "mae", "lvd142m", "lvd1689m")


class Inputs(NamedTuple):
  """How pictures are brought to a network.

  Attributes:
    mean: Of each channel; images in [0, 1] are normalised as ``(images - mean) / std``.
    std: Likewise.
    image_size: Side in pixels of the squares the checkpoint was evaluated on.
    crop: Part of the picture's short side that this square shows, from its middle; above 0, at
      most 1.
    interpolation: How it was resized, one of `INTERPOLATIONS`.
  """

  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  image_size: int
  crop: float
  interpolation: str


def read_inputs(
  header: Mapping[str, str],
  config: Mapping[str, Any] | None,
  *,
  file: pathlib.Path | str,
  config_file: pathlib.Path | str,
  default: Inputs,
) -> Inputs:
  """Reads them from the header of a safetensors file, then from timm's ``config.json``.

  Args:
    header: Metadata of the safetensors file: ``input_mean`` and ``input_std`` (three numbers
      separated by commas), ``input_size``, ``crop_pct`` and ``interpolation`` count.
    config: The part of ``config.json`` that describes the weights; None where there is no such
      file. It has to hold ``mean`` and ``std``, unless the header does.
    file: What the safetensors file is called in messages.
    config_file: Likewise.
    default: What holds where neither says.

  Returns:
    The `Inputs`.

  Raises:
    InputError: If a field is damaged or missing; the line names file and field.
  """
  stated = {}  # field of config.json: value, and where it stands
  for field, name in _IN_HEADER.items():
    if name in header:
      stated[field] = header[name], f"{file}: the field {name} of its header"
    elif config is not None and field in config:
      stated[field] = config[field], f"{config_file}: its field {field}"
    else:
      require(
        config is None or field not in ("mean", "std"),
        f"{config_file}: its field {field} is missing; fetch it again.",
      )
  std = _read(stated, "std", _triple, default.std)
  require(
    min(std) > 0,
    lambda: f"{stated['std'][1]} is {stated['std'][0]!r}; deviations have to be above 0.",
  )
  return Inputs(
    mean=_read(stated, "mean", _triple, default.mean),
    std=std,
    image_size=_read(stated, "input_size", _side, default.image_size),
    crop=_read(stated, "crop_pct", _crop, default.crop),
    interpolation=_read(stated, "interpolation", _interpolation, default.interpolation),
  )


def labels_of_tag(tag: str) -> str:
  """Which labels are behind weights, by timm's tag for them.

  Args:
    tag: Such as ``a1_in1k``.

  Returns:
    The labels, "none", or "unknown".
  """
  found = [labels for signs, labels in _LABELS if any(sign in tag for sign in signs)]
  if found:
    return ", ".join(found)
  return "none" if any(sign in tag for sign in _WITHOUT_LABELS) else "unknown"


def _read(stated, field, parse, default):
  """Parses a stated field; what is wrong with it becomes one line that names its place."""
  if field not in stated:
    return default
  value, place = stated[field]
  try:
    return parse(value)
  except (TypeError, ValueError, OverflowError) as error:
    raise InputError(f"{place} is {brief(value)}; expected {_EXPECTED[parse]}.") from error


def _numbers(value, kind=float):
  """Numbers of a list, or of text with commas between them."""
  if isinstance(value, str):
    return [kind(part) for part in value.split(",")]
  if any(isinstance(number, bool) or not isinstance(number, int | float) for number in value):
    raise TypeError
  if any(kind(number) != number for number in value):
    raise ValueError
  return [kind(number) for number in value]


def _triple(value):
  first, second, third = _numbers(value)
  if not all(map(math.isfinite, (first, second, third))):
    raise ValueError
  return first, second, third


def _side(value):
  """timm gives channels, height and width; a single number is the side."""
  numbers = _numbers([value] if isinstance(value, int | float) else value, int)
  if len(numbers) == 1:
    numbers = [3, *numbers, *numbers]
  channels, height, width = numbers
  if channels != 3 or min(height, width) < 1:
    raise ValueError
  return min(height, width)


def _crop(value):
  (crop,) = _numbers(value if isinstance(value, str) else [value])
  if not 0 < crop <= 1:
    raise ValueError
  return crop


def _interpolation(value):
  if value not in INTERPOLATIONS:
    raise ValueError
  return value


_EXPECTED = {
  _triple: "three numbers, one for each channel, such as 0.485,0.456,0.406",
  _side: "a side in pixels such as 224, or channels, height and width such as 3,224,224",
  _crop: "a number above 0 and at most 1, such as 0.875",
  _interpolation: "one of " + ", ".join(INTERPOLATIONS),
}
