"""CIBHash: contrast between codes, the learned rival of every unsupervised table."""

import functools

from ml_collections import ConfigDict

from udh_jax.runtime.stage import Stage
from udh_jax.stages import contrast, encode, features, floors, teacher


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/cibhash.py``.
  """
  bits = f"{config.bits}bits"
  first = functools.partial(features.features, image_size=config.features.image_sizes[0])
  return [
    teacher.stage(config),
    Stage(f"contrast_{bits}", contrast.contrast, contrast.FIELDS, {"teacher": "teacher"}),
    Stage(f"encode_{bits}", encode.encode, encode.FIELDS, {"student": f"contrast_{bits}"}),
    Stage("features_1", first, features.FIELDS, {"teacher": "teacher"}),
    Stage(f"floors_{bits}", floors.floors, floors.FIELDS, {"features": "features_1"}),
  ]
