"""Contrast between images and texts: a learned method to compare DUDCH and DJSRH with."""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import defaults
from udh_jax.methods.steps import pair_network_plan
from udh_jax.runtime.plan import Plan
from udh_jax.stages import pair_contrast


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of the contrast of pairs with their default values: ours.

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_pairs("pair_contrast", data, data_fields)
  config.contrast = defaults.pair_training(
    epochs=60, batch_size=128, temperature=0.3, quantisation_weight=0.1
  )
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/pair_contrast.py``."""
  return pair_network_plan(config, "Pair contrast", "contrast", pair_contrast.STAGE)
