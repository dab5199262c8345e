"""Methods by name."""

from collections.abc import Callable

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.methods import udh_ecc
from udh_jax.runtime.stage import Stage

METHODS: dict[str, Callable[[ConfigDict], list[Stage]]] = {"udh_ecc": udh_ecc.stages}


def method_stages(config: ConfigDict) -> list[Stage]:
  """The stages of ``config.method``.

  Raises:
    InputError: If there is no such method, or a field has no sense for any method.
  """
  require(
    config.method in METHODS,
    lambda: f"method {config.method!r} is unknown; choose one of {', '.join(sorted(METHODS))}.",
  )
  require(config.bits >= 1, f"bits is {config.bits}; a code has 1 bit or more.")
  require(config.rounds >= 1, f"rounds is {config.rounds}; it has to be 1 or more.")
  for field in ("num_clusters", "num_clusterings"):
    value = config.cluster[field]
    require(value >= 1, f"cluster.{field} is {value}; it has to be 1 or more.")
  return METHODS[config.method](config)
