"""DUDCH: a DJSRH teacher's similarities supervise an asymmetric student with discrete codes.

Teacher, symmetric similarity, asymmetric student and DCC are the paper's (its abstract); the
similarity's formula and the student's objective are our own.
"""

from ml_collections import ConfigDict

from udh_jax.methods.djsrh import encoding, teacher_bits, teacher_stages
from udh_jax.runtime.stage import Stage
from udh_jax.stages import discrete, similarity


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/dudch.py``.
  """
  before, teacher = teacher_stages(config)
  bits, longer = f"{config.bits}bits", f"{teacher_bits(config)}bits"
  inputs = {"similarity": f"similarity_{longer}"}
  if config.teacher.weights:
    inputs["backbone"] = "teacher"
  return [
    *before,
    Stage(f"similarity_{longer}", similarity.similarity, similarity.FIELDS, {"teacher": teacher}),
    Stage(f"student_{bits}", discrete.discrete, discrete.FIELDS, inputs),
    encoding(f"encode_{bits}", f"student_{bits}"),
  ]
