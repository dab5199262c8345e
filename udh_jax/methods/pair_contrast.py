"""Contrast between images and texts: the learned rival of DUDCH and DJSRH on the same networks."""

from ml_collections import ConfigDict

from udh_jax.methods.djsrh import backbone_stages, encoding
from udh_jax.runtime.stage import Stage
from udh_jax.stages import pair_contrast


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/pair_contrast.py``.
  """
  before, inputs = backbone_stages(config)
  bits = f"{config.bits}bits"
  used = {role: name for role, name in inputs.items() if role == "backbone"}
  networks = f"pair_contrast_{bits}"
  return [
    *before[: len(used)],
    Stage(networks, pair_contrast.pair_contrast, pair_contrast.FIELDS, used),
    encoding(f"encode_{bits}", networks),
  ]
