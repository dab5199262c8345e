"""CIBHash: contrast between codes, a learned method to compare with in every unsupervised table."""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.methods import defaults
from udh_jax.methods.frozen import require_views_augmented
from udh_jax.methods.steps import (
  baselines_of,
  baselines_stage,
  cached_features,
  codes_of,
  encode_stage,
  features_stage,
)
from udh_jax.runtime.plan import Plan
from udh_jax.stages import contrast, views
from udh_jax.stages.teacher import teacher_stage


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of CIBHash with their default values (docs/method.md#cibhash).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images("cibhash", data, data_fields)
  # `chunk_size`: images of a batch that memory has to hold at a time; 0 is all.
  config.contrast = defaults.training(temperature=0.3, divergence_weight=0.001, chunk_size=0)
  # Of a backbone that stays as it is (`contrast.trained` is "head").
  config.views = defaults.views() | {"number": 4}
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/cibhash.py``.

  Raises:
    InputError: If the backbone stays as it is and there are not two views to contrast.
  """
  network = f"contrast_{config.bits}bits"
  cached = cached_features(config, "contrast", {"features": "features_1"})
  require(
    not cached or config.views.number >= 2,
    f"views.number is {config.views.number}, but contrast.trained is 'head': the whole picture and "
    "a view are contrasted, and one view is kept apart; give 2 or more.",
  )
  made = {"views": "views"} if cached else {}
  if cached:
    require_views_augmented(config, "contrast")
  return Plan(
    "CIBHash",
    (
      teacher_stage(config),
      features_stage(config, 1, "teacher"),
      *(views.STAGE.named(name, teacher="teacher", features="features_1") for name in made),
      contrast.STAGE.named(network, teacher="teacher", **made),
      encode_stage(config, network, **cached),
      baselines_stage(config),
    ),
    network,
    (codes_of(config, "CIBHash"), *baselines_of(config)),
  )
