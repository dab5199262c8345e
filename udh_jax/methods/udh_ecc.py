"""UDH-ECC: unsupervised distillation hashing with equal-size-constrained clustering.

The stages and their order are the paper's (its abstract); that features, clustering and
fine-tuning are repeated in rounds is our own choice, after SeLa.
"""

import functools

from ml_collections import ConfigDict

from udh_jax.methods.steps import baselines_stage, encode_stage, features_stage
from udh_jax.runtime.stage import Stage
from udh_jax.stages import cluster, distill, finetune, soft_labels, teacher


def stages(config: ConfigDict) -> list[Stage]:
  """The stages of a run, in order.

  Args:
    config: See ``configs/udh_ecc.py``.

  Returns:
    Stages; those that depend on the code length carry it in their names, so that one work directory
    can hold several lengths on the same teacher.
  """
  plan = [teacher.stage(config)]
  current = "teacher"
  for number in range(1, config.rounds + 1):
    plan += [
      features_stage(config, number, current),
      Stage(
        f"cluster_{number}", cluster.cluster, cluster.FIELDS, {"features": f"features_{number}"}
      ),
      Stage(
        f"finetune_{number}",
        functools.partial(finetune.finetune, seed_offset=number),
        finetune.FIELDS,
        {"teacher": current, "clustering": f"cluster_{number}"},
      ),
    ]
    current = f"finetune_{number}"
  bits = f"{config.bits}bits"
  return [
    *plan,
    Stage("soft_labels", soft_labels.soft_labels, soft_labels.FIELDS, {"teacher": current}),
    Stage(
      f"distill_{bits}",
      distill.distill,
      distill.FIELDS,
      {"teacher": current, "soft_labels": "soft_labels"},
    ),
    encode_stage(config, f"distill_{bits}"),
    baselines_stage(config),
    baselines_stage(config, "tuned_baselines", "soft_labels"),
  ]
