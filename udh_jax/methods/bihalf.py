"""BiHalf: bits that halve every batch, a learned method to compare with."""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import defaults
from udh_jax.methods.steps import (
  baselines_of,
  baselines_stage,
  cached_features,
  codes_of,
  encode_stage,
  features_stage,
  require_enough_features,
)
from udh_jax.runtime.plan import Plan
from udh_jax.stages import bihalf
from udh_jax.stages.teacher import teacher_stage


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of BiHalf with their default values (docs/method.md#bihalf).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images("bihalf", data, data_fields)
  config.features.image_sizes = (224,)
  # As published, the backbone stays as it is: features are made once, and training takes seconds.
  # The rates are of the hash layer; a backbone that is trained too wants a tenth of them.
  config.bihalf = defaults.training(
    steps=2000,
    batch_size=256,
    learning_rate=1e-3,
    head_learning_rate=1e-3,
    trained="head",
    hash_start="itq",
    entropy_weight=6.0,
  )
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/bihalf.py``."""
  if config.bihalf.hash_start == "itq":
    require_enough_features(config, "bihalf.hash_start='random'")
  network, baselines = f"bihalf_{config.bits}bits", baselines_stage(config)
  roles = {"features": "features_1"}
  return Plan(
    "BiHalf",
    (
      teacher_stage(config),
      features_stage(config, 1, "teacher"),
      baselines,
      bihalf.STAGE.named(network, teacher="teacher", baselines=baselines.name, **roles),
      encode_stage(config, network, **cached_features(config, "bihalf", roles)),
    ),
    network,
    (codes_of(config, "BiHalf"), *baselines_of(config)),
  )
