"""SSDH: hashing by the structure of distances; the base method of PSCH."""

from ml_collections import ConfigDict

from udh_jax.methods.steps import baselines_stage, encode_stage, features_stage
from udh_jax.runtime.stage import Stage
from udh_jax.stages import ssdh, structure, teacher


def structure_stage() -> Stage:
  """The stage ``structure``."""
  return Stage("structure", structure.structure, structure.FIELDS, {"features": "features_1"})


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/ssdh.py``.
  """
  name = f"ssdh_{config.bits}bits"
  inputs = {"teacher": "teacher", "features": "features_1", "structure": "structure"}
  return [
    teacher.stage(config),
    features_stage(config, 1, "teacher"),
    structure_stage(),
    Stage(name, ssdh.ssdh, ssdh.FIELDS, inputs),
    encode_stage(config, name),
    baselines_stage(config),
  ]
