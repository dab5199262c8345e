"""DUDCH: a DJSRH teacher's similarities supervise an asymmetric student with discrete codes.

Teacher, symmetric similarity, asymmetric student and DCC are the paper's (its abstract); the
similarity's formula and the student's objective are our own.
"""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.methods import defaults
from udh_jax.methods.djsrh import djsrh_section, djsrh_stages, teacher_bits
from udh_jax.methods.steps import cached_features, encode_pairs_stage, pair_codes_of
from udh_jax.runtime.plan import CodeSource, Plan
from udh_jax.stages import similarity, student


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of DUDCH with their default values (docs/method.md#default-values).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_pairs("dudch", data, data_fields)
  config.djsrh = djsrh_section(data)
  config.similarity = {"image_share": 0.5, "cross_share": 0.5}
  # In each of `rounds`: draw `sampled_pairs`, pass over them `epochs` times, then `sweeps` of DCC.
  config.student = defaults.pair_training(
    rounds=30, sampled_pairs=2000, epochs=1, sweeps=3, quantisation_weight=0.06, discrete="dcc"
  )
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/dudch.py``."""
  before, teacher, roles = djsrh_stages(config)
  bits, longer = config.bits, teacher_bits(config)
  rebuilt, network = f"similarity_{longer}bits", f"student_{bits}bits"
  seen = {name: cached_features(config, name, roles) for name in ("djsrh", "student")}
  own = pair_codes_of(config, "DUDCH")
  learned = dict.fromkeys(("image", "text"), (network, "learned_codes"))
  relaxed = {side: (rebuilt, f"{side}s") for side in ("image", "text")}
  length = f", {longer} bits" if config.djsrh.bits else ""  # alike in every column of a sweep
  return Plan(
    "DUDCH",
    (
      *before,
      similarity.STAGE.named(rebuilt, teacher=teacher, **seen["djsrh"]),
      student.STAGE.named(network, similarity=rebuilt, **roles),
      encode_pairs_stage(config, network, **seen["student"]),
    ),
    network,
    (
      own,
      CodeSource("DUDCH, learned codes in the database", own.query, learned),
      CodeSource(f"DJSRH, its teacher{length}", relaxed),
    ),
  )
