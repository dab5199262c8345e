"""Methods by name."""

import functools
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.evaluation import images as evaluation
from udh_jax.evaluation import pairs as cross_evaluation
from udh_jax.methods import (
  cibhash,
  dhih,
  djsrh,
  dudch,
  pair_contrast,
  psch,
  ssdh,
  udh_ecc,
)
from udh_jax.runtime.stage import Stage


class Method(NamedTuple):
  """A published system.

  Attributes:
    title: Its name in tables.
    stages: From a configuration to its stages, in order. The one that makes the codes is called
      ``encode_{bits}bits``.
    evaluate: Scores the codes and writes what a run leaves, see `udh_jax.evaluation.images`.
  """

  title: str
  stages: Callable[[ConfigDict], list[Stage]]
  evaluate: Callable[..., dict[str, float]] = evaluation.evaluate


METHODS = {
  "udh_ecc": Method("UDH-ECC", udh_ecc.stages),
  "cibhash": Method("CIBHash", cibhash.stages),
  "djsrh": Method("DJSRH", djsrh.stages, cross_evaluation.evaluate),
  "pair_contrast": Method("Pair contrast", pair_contrast.stages, cross_evaluation.evaluate),
  "dudch": Method("DUDCH", dudch.stages, cross_evaluation.evaluate),
  "ssdh": Method("SSDH", ssdh.stages),
  "psch": Method(
    "PSCH", psch.stages, functools.partial(evaluation.evaluate, pictures=psch.pictures)
  ),
  **{name: Method(title, dhih.stages) for name, title in dhih.TITLES.items()},
}

_COUNTS = ("bits", "rounds", "cluster.num_clusters", "cluster.num_clusterings")


def method(config: ConfigDict) -> tuple[Method, list[Stage]]:
  """The method ``config.method`` and its stages.

  Raises:
    InputError: If there is no such method, or a field has no sense for any method.
  """
  require(
    config.method in METHODS,
    lambda: f"method {config.method!r} is unknown; choose one of {', '.join(sorted(METHODS))}.",
  )
  for field in _COUNTS:
    section, _, last = field.rpartition(".")
    fields = config.get(section, {}) if section else config
    if last in fields:
      require(fields[last] >= 1, f"{field} is {fields[last]}; it has to be 1 or more.")
  found = METHODS[config.method]
  return found, found.stages(config)
