"""UCCH: contrast of images and texts by a memory of codes; a learned method beside DUDCH."""

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
from udh_jax.stages import ucch


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of UCCH with the authors' values (docs/method.md#ucch).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_pairs("ucch", data, data_fields)
  config.ucch = defaults.pair_training(
    epochs=20,
    batch_size=256,
    optimizer="adam",
    image_learning_rate=1e-4,
    text_learning_rate=1e-4,
    weight_decay=1e-6,
    temperature=0.9,
    negatives=4096,
    memory_momentum=0.4,
    contrast_share=0.7,
    margin=0.2,
    shift=0.1,
  )
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/ucch.py``."""
  before, roles = backbone_stages(config)
  features = cached_features(config, "ucch", roles)
  used = {role: name for role, name in roles.items() if role == "backbone"} | features
  network = f"ucch_{config.bits}bits"
  stages = (
    *before[: len(used)],  # features are read only where the backbone stays as it is
    ucch.STAGE.named(network, **used),
    encode_pairs_stage(config, network, **features),
  )
  return Plan("UCCH", stages, network, (pair_codes_of(config, "UCCH"),))
