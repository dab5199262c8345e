"""CIBHash: contrast between codes, the learned rival of every unsupervised table."""

from ml_collections import ConfigDict

from udh_jax.methods.steps import baselines_stage, encode_stage, features_stage
from udh_jax.runtime.stage import Stage
from udh_jax.stages import contrast, teacher


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/cibhash.py``.
  """
  bits = f"{config.bits}bits"
  return [
    teacher.stage(config),
    Stage(f"contrast_{bits}", contrast.contrast, contrast.FIELDS, {"teacher": "teacher"}),
    encode_stage(config, f"contrast_{bits}"),
    features_stage(config, 1, "teacher"),
    baselines_stage(config),
  ]
