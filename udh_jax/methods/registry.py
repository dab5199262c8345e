"""Methods by name."""

from collections.abc import Callable

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.methods import (
  baseline,
  bihalf,
  cibhash,
  dhih,
  djsrh,
  dudch,
  fields,
  pair_contrast,
  psch,
  ssdh,
  steps,
  ucch,
  udh_ecc,
)
from udh_jax.records import brief
from udh_jax.runtime.plan import Plan

METHODS: dict[str, Callable[[ConfigDict], Plan]] = {
  "udh_ecc": udh_ecc.plan,
  "cibhash": cibhash.plan,
  "bihalf": bihalf.plan,
  "djsrh": djsrh.plan,
  "pair_contrast": pair_contrast.plan,
  "dudch": dudch.plan,
  "ucch": ucch.plan,
  "ssdh": ssdh.plan,
  "psch": psch.plan,
  **dict.fromkeys(dhih.TITLES, dhih.plan),
  **dict.fromkeys(baseline.METHODS, baseline.plan),
}


def make_plan(config: ConfigDict) -> Plan:
  """The plan of the method ``config.method``.

  Raises:
    InputError: If there is no such method, or a field is invalid.
  """
  require(
    isinstance(config.method, str) and config.method in METHODS,
    lambda: (
      f"method {brief(config.method)} is unknown; choose one of {', '.join(sorted(METHODS))}."
    ),
  )
  fields.require_valid(config)
  steps.require_readable_sides(config)
  return METHODS[config.method](config)
