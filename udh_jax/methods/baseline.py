"""Baselines as methods: ITQ, PCA with a rotation or LSH on the features of a published network.

Nothing is trained. They are the first thing to try, and what every learned code is compared with.
"""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import defaults
from udh_jax.methods.steps import (
  baselines_of,
  baselines_stage,
  features_stage,
  require_enough_features,
  require_one_side,
)
from udh_jax.runtime.plan import Plan
from udh_jax.stages import linear
from udh_jax.stages.teacher import teacher_stage

# Names of methods, and of the baselines among `udh_jax.stages.baselines.BASELINES`.
METHODS = {"itq": "itq", "pca": "pca_rotation", "lsh": "lsh"}


def default_config(data: str, *, method: str = "itq", **data_fields: Any) -> ConfigDict:
  """All fields of a baseline with their default values.

  Args:
    data: Name of the data set.
    method: One of `METHODS`.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images(method, data, data_fields)
  del config["student"]
  del config["encode"]  # codes come with the features
  config.features.image_sizes = config.features.image_sizes[:1]
  return config


def plan(config: ConfigDict) -> Plan:
  """The baseline ``config.method`` with its configuration; see ``configs/baseline.py``."""
  name = METHODS[config.method]
  require_one_side(config, "a baseline has one round")
  if name != "lsh":
    require_enough_features(config, "method='lsh'")
  network, baselines = f"{config.method}_{config.bits}bits", baselines_stage(config)
  sources = {source.query["image"][1]: source for source in baselines_of(config)}
  own = sources.pop(name)
  return Plan(
    own.title,
    (
      teacher_stage(config),
      features_stage(config, 1, "teacher"),
      baselines,
      linear.STAGE.with_options(name=name).named(
        network, teacher="teacher", features="features_1", baselines=baselines.name
      ),
    ),
    network,
    (own, *sources.values()),
  )
