"""DHIH: supervised and point-wise, by the highly interrelated loss; and competing methods.

A hash layer on any network and no n x n matrix are the paper's (its abstract); the family of losses
is our own reading of it. Competing methods are other losses of the same trainer.
"""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.losses import family
from udh_jax.losses.margin import KINDS, require_margin
from udh_jax.losses.registry import POINT_WISE
from udh_jax.methods import defaults
from udh_jax.methods.steps import (
  baselines_of,
  baselines_stage,
  cached_features,
  codes_of,
  encode_stage,
  features_stage,
)
from udh_jax.runtime.plan import Plan
from udh_jax.stages import supervised
from udh_jax.stages.teacher import teacher_stage

MEMBERS = tuple(family.MEMBERS)
# Titles by method: DHIH, by the best of its family; the members; competing methods.
TITLES = {"dhih": "DHIH"} | {
  f"dhih_{name}" if name in MEMBERS else name: loss.title for name, loss in POINT_WISE.items()
}


DHIH_LOSS = "a_softmax"  # of the method "dhih": the best of its family on validation images


def loss_name(method: str) -> str:
  """What ``loss.name`` is: other values of scale and margin belong to other losses."""
  return DHIH_LOSS if method == "dhih" else method.removeprefix("dhih_")


def default_config(data: str, *, method: str = "dhih", **data_fields: Any) -> ConfigDict:
  """All fields of DHIH, or of a competing method, with their default values.

  Args:
    data: Name of the data set.
    method: One of `TITLES`; it decides the loss.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images(method, data, data_fields)
  name = loss_name(method)
  # scale and margin: s and m of `udh_jax.losses.margin`; annealing_*: of its `annealing_weight`.
  config.loss = {
    "name": name,
    "scale": 1.0,
    "margin": 0,
    "annealing_start": 1000.0,
    "annealing_rate": 0.12,
    "annealing_least": 5.0,
    "quantisation_weight": 0.1,
    **POINT_WISE[name].fields,
  }
  config.supervised = defaults.training(steps=500)
  config.score.at = 0
  return config


def plan(config: ConfigDict) -> Plan:
  """The method ``config.method`` with its configuration; see ``configs/dhih.py``.

  Raises:
    InputError: If the loss is not the method's, or cannot have such a scale or margin.
  """
  name = loss_name(config.method)
  require(
    config.loss.name == name,
    f"loss.name is {config.loss.name!r}, but method {config.method!r} has {name!r}; choose the "
    "preset of the other loss, such as cifar10_dhih_cosface.",
  )
  # OrthoHash's margin is CosFace's; the other competing methods read none.
  kind = {"orthohash": "cosface"}.get(config.loss.name, config.loss.name)
  if kind in KINDS:
    require_margin(kind, config.loss.scale, config.loss.margin, name="loss.")
  title, network = TITLES[config.method], f"supervised_{config.bits}bits"
  cached = cached_features(config, "supervised", {"features": "features_1"})
  return Plan(
    title,
    (
      teacher_stage(config),
      features_stage(config, 1, "teacher"),
      supervised.STAGE.named(network, teacher="teacher", **cached),
      encode_stage(config, network, **cached),
      baselines_stage(config),
    ),
    network,
    (codes_of(config, title), *baselines_of(config)),
    check=supervised.require_labels_of,
  )
