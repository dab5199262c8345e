"""Contrast between images and texts: a learned method to compare DUDCH and DJSRH with."""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import defaults
from udh_jax.methods.steps import (
  backbone_stages,
  cached_features,
  encode_pairs_stage,
  pair_codes_of,
)
from udh_jax.runtime.plan import Plan
from udh_jax.stages import pair_contrast


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of the contrast of pairs with their usual values: ours.

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
  before, roles = backbone_stages(config)
  features = cached_features(config, "contrast", roles)
  used = {role: name for role, name in roles.items() if role == "backbone"} | features
  network = f"pair_contrast_{config.bits}bits"
  stages = (
    *before[: len(used)],  # features are read only where the backbone stays as it is
    pair_contrast.STAGE.named(network, **used),
    encode_pairs_stage(config, network, **features),
  )
  return Plan("Pair contrast", stages, network, (pair_codes_of(config, "Pair contrast"),))
