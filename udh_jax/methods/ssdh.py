"""SSDH: hashing by the structure of distances; the base method of PSCH."""

import functools

from ml_collections import ConfigDict

from udh_jax.runtime.stage import Stage
from udh_jax.stages import encode, features, floors, ssdh, structure, teacher


def first_stages(config: ConfigDict) -> list[Stage]:
  """The stages up to the features of the frozen network."""
  first = functools.partial(features.features, image_size=config.features.image_sizes[0])
  return [
    teacher.stage(config),
    Stage("features_1", first, features.FIELDS, {"teacher": "teacher"}),
  ]


def structure_stage() -> Stage:
  """The stage ``structure``."""
  return Stage("structure", structure.structure, structure.FIELDS, {"features": "features_1"})


def last_stages(bits: str, student: str) -> list[Stage]:
  """Codes by the stage ``student``, and those of the floors."""
  return [
    Stage(f"encode_{bits}", encode.encode, encode.FIELDS, {"student": student}),
    Stage(f"floors_{bits}", floors.floors, floors.FIELDS, {"features": "features_1"}),
  ]


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/ssdh.py``.
  """
  bits = f"{config.bits}bits"
  inputs = {"teacher": "teacher", "features": "features_1", "structure": "structure"}
  return [
    *first_stages(config),
    structure_stage(),
    Stage(f"ssdh_{bits}", ssdh.ssdh, ssdh.FIELDS, inputs),
    *last_stages(bits, f"ssdh_{bits}"),
  ]
