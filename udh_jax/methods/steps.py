"""Stages that the methods on images have in common."""

import functools

from ml_collections import ConfigDict

from udh_jax.runtime.stage import Stage
from udh_jax.stages import baselines as baselines
from udh_jax.stages import encode, features


def features_stage(config: ConfigDict, number: int, teacher: str) -> Stage:
  """Features of round ``number``, counted from 1, by the network of the stage ``teacher``."""
  sizes = config.features.image_sizes
  build = functools.partial(features.features, image_size=sizes[min(number, len(sizes)) - 1])
  return Stage(f"features_{number}", build, features.FIELDS, {"teacher": teacher})


def encode_stage(config: ConfigDict, student: str) -> Stage:
  """Codes by the hash network of the stage ``student``."""
  return Stage(f"encode_{config.bits}bits", encode.encode, encode.FIELDS, {"student": student})


def baselines_stage(
  config: ConfigDict, name: str = "baselines", source: str = "features_1"
) -> Stage:
  """Codes of the baselines, made of the features of the stage ``source``."""
  return Stage(
    f"{name}_{config.bits}bits", baselines.baselines, baselines.FIELDS, {"features": source}
  )
