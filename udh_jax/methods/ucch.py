"""UCCH: contrast of images and texts by a memory of codes; a learned method beside DUDCH."""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import defaults
from udh_jax.methods.steps import pair_network_plan
from udh_jax.runtime.plan import Plan
from udh_jax.stages import ucch


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of UCCH with values for all sets, chosen as DUDCH's were (docs/method.md#ucch).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_pairs("ucch", data, data_fields)
  config.ucch = defaults.pair_training(
    epochs=80,
    batch_size=256,
    hidden=512,
    dropout=0.15,
    optimizer="adam",
    decay="cosine",
    image_learning_rate=3e-3,
    text_learning_rate=3e-3,
    weight_decay=2e-3,
    temperature=0.7,
    negatives=4096,
    memory_momentum=0.4,
    contrast_share=0.3,
    margin=0.1,
    shift=1.0,
  )
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/ucch.py``."""
  return pair_network_plan(config, "UCCH", "ucch", ucch.STAGE)
