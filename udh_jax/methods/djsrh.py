"""DJSRH: image-text hashing without labels that rebuilds joint semantics; DUDCH's teacher."""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.methods import defaults
from udh_jax.methods.steps import (
  backbone_stages,
  cached_features,
  encode_pairs_stage,
  pair_codes_of,
)
from udh_jax.runtime.plan import Plan
from udh_jax.runtime.stage import Stage
from udh_jax.stages import djsrh


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of DJSRH; docs/method.md#djsrh says which values are the authors'.

  Args:
    data: Name of the data set, one of pairs.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_pairs("djsrh", data, data_fields)
  config.djsrh = djsrh_section(data)
  return config


# On features one setting serves all sets, chosen on validation pairs of several (docs/results.md).
# On pictures beta, within_weight, epochs and eta are the authors'.
_ON_FEATURES = {
  "beta": 0.6,
  "eta": 0.2,
  "within_weight": 0.3,
  "hidden": 512,
  "epochs": 30,
  "batch_size": 128,
  "optimizer": "adam",
  "decay": "cosine",
  "image_learning_rate": 3e-3,
  "text_learning_rate": 3e-3,
}
_DJSRH: dict[str, dict[str, Any]] = {
  "wikipedia": _ON_FEATURES,
  "features": _ON_FEATURES,
  "pairs": _ON_FEATURES,
  "mirflickr25k": {"beta": 0.9, "within_weight": 0.1, "epochs": 80},
  "nus_wide": {"beta": 0.6, "within_weight": 0.1, "epochs": 80},
}


def djsrh_section(data: str) -> dict[str, Any]:
  """The fields of DJSRH's training on a data set, also where it is a teacher."""
  # bits 0: as long as the codes. within_weight: of both reconstructions within one modality.
  return defaults.pair_training(**{"bits": 0, "eta": 0.4, "mu": 1.5} | _DJSRH[data])


def teacher_bits(config: ConfigDict) -> int:
  """Length of DJSRH's codes."""
  return config.djsrh.bits or config.bits


def djsrh_stages(config: ConfigDict) -> tuple[tuple[Stage, ...], str, dict[str, str]]:
  """The stages up to DJSRH's networks, the name of the last one, and `backbone_stages`' roles."""
  before, roles = backbone_stages(config)
  bits = teacher_bits(config)
  name = f"djsrh_{bits}bits"
  return (*before, djsrh.STAGE.with_options(bits=bits).named(name, **roles)), name, roles


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/djsrh.py``.

  Raises:
    InputError: If ``djsrh.bits`` is another length than ``bits``.
  """
  require(
    config.djsrh.bits in (0, config.bits),
    f"djsrh.bits is {config.djsrh.bits}, but bits is {config.bits}: another length is for DUDCH's "
    "teacher; set djsrh.bits to 0.",
  )
  before, network, roles = djsrh_stages(config)
  features = cached_features(config, "djsrh", roles)
  stages = (*before, encode_pairs_stage(config, network, **features))
  return Plan("DJSRH", stages, network, (pair_codes_of(config, "DJSRH"),))
