"""DHIH: supervised and point-wise, by the highly interrelated loss; and its rivals.

A hash layer on any network and no n x n matrix are the paper's (its abstract); the family of losses
is our own reading of it. Rivals are other losses of the same trainer.
"""

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.losses.margin import KINDS
from udh_jax.methods.steps import baselines_stage, encode_stage, features_stage
from udh_jax.runtime.stage import Stage
from udh_jax.stages import supervised, teacher

RIVALS = {
  "softmax": "Softmax",
  "greedyhash": "GreedyHash",
  "orthohash": "OrthoHash",
  "csq": "CSQ",
}
MEMBERS = tuple(kind for kind in KINDS if kind not in RIVALS)
# Titles by method: DHIH, whose loss is any of the family; its members; rivals.
TITLES = {"dhih": "DHIH", **{f"dhih_{kind}": f"DHIH, {kind}" for kind in MEMBERS}, **RIVALS}


def loss_names(method: str) -> tuple[str, ...]:
  """What ``loss.name`` may be, so that a table's title never belies the loss."""
  return MEMBERS if method == "dhih" else (method.removeprefix("dhih_"),)


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/dhih.py``.

  Raises:
    InputError: If the loss is not the method's.
  """
  names = loss_names(config.method)
  require(
    config.loss.name in names,
    f"loss.name is {config.loss.name!r}, but method {config.method!r} has {' or '.join(names)}; "
    "choose the preset of the other method.",
  )
  bits = f"{config.bits}bits"
  return [
    teacher.stage(config),
    Stage(
      f"supervised_{bits}",
      supervised.supervised,
      supervised.FIELDS,
      {"teacher": "teacher"},
      reads_labels=True,
    ),
    encode_stage(config, f"supervised_{bits}"),
    features_stage(config, 1, "teacher"),
    baselines_stage(config),
  ]
