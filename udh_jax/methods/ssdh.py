"""SSDH: hashing by the structure of distances; the base method of PSCH."""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import defaults
from udh_jax.methods.steps import (
  baselines_of,
  baselines_stage,
  codes_of,
  encode_stage,
  features_stage,
  require_enough_features,
  structure_stage,
)
from udh_jax.runtime.plan import Plan
from udh_jax.stages import ssdh
from udh_jax.stages.teacher import teacher_stage


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of SSDH with their default values (docs/method.md#psch-and-ssdh).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images("ssdh", data, data_fields)
  config.structure = defaults.structure()
  config.ssdh = defaults.training(
    hash_start="itq"
  )  # "itq" begins at the baseline's codes, or "random"
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/ssdh.py``."""
  if config.ssdh.hash_start == "itq":
    require_enough_features(config, "ssdh.hash_start='random'")
  network, baselines = f"ssdh_{config.bits}bits", baselines_stage(config)
  inputs = {"features": "features_1", "structure": "structure", "baselines": baselines.name}
  return Plan(
    "SSDH",
    (
      teacher_stage(config),
      features_stage(config, 1, "teacher"),
      structure_stage(),
      baselines,
      ssdh.STAGE.named(network, teacher="teacher", **inputs),
      encode_stage(config, network),
    ),
    network,
    (codes_of(config, "SSDH"), *baselines_of(config)),
  )
