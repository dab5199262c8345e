"""DJSRH: image-text hashing without labels that rebuilds joint semantics; DUDCH's teacher."""

import functools

from ml_collections import ConfigDict

from udh_jax.methods.steps import features_stage
from udh_jax.runtime.stage import Stage
from udh_jax.stages import djsrh, encode_pairs, teacher


def backbone_stages(config: ConfigDict) -> tuple[list[Stage], dict[str, str]]:
  """What image networks on pictures begin with, and its stages by role; nothing for features."""
  if not config.teacher.weights:
    return [], {}
  return [teacher.stage(config), features_stage(config, 1, "teacher")], {
    "backbone": "teacher",
    "features": "features_1",
  }


def teacher_bits(config: ConfigDict) -> int:
  """Length of DJSRH's codes."""
  return config.djsrh.bits or config.bits


def teacher_stages(config: ConfigDict) -> tuple[list[Stage], str]:
  """The stages up to DJSRH's networks, and the name of the last one."""
  before, inputs = backbone_stages(config)
  bits = teacher_bits(config)
  name = f"djsrh_{bits}bits"
  stage = Stage(name, functools.partial(djsrh.djsrh, bits=bits), djsrh.FIELDS, inputs)
  return [*before, stage], name


def encoding(name: str, networks: str) -> Stage:
  """The stage ``name``: codes by the networks of another stage."""
  return Stage(name, encode_pairs.encode_pairs, encode_pairs.FIELDS, {"networks": networks})


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/djsrh.py``.
  """
  before, networks = teacher_stages(config)
  return [*before, encoding(f"encode_{config.bits}bits", networks)]
