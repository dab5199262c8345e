"""UDH-ECC: unsupervised distillation hashing with equal-size-constrained clustering.

The stages and their order are the paper's (its abstract); that features, clustering and
fine-tuning are repeated in rounds is our own choice, after SeLa.
"""

from typing import Any

from ml_collections import ConfigDict

from udh_jax.errors import require
from udh_jax.methods import defaults
from udh_jax.methods.frozen import frozen_stages, guarded_codes_of, stages_after_training
from udh_jax.methods.steps import (
  averaged_stages,
  baselines_of,
  baselines_stage,
  clustered_stages,
  features_stage,
  require_enough_features,
  sizes_can_be_met,
)
from udh_jax.runtime.plan import Plan
from udh_jax.stages import cluster, distill, finetune, soft_labels
from udh_jax.stages.teacher import teacher_stage


def default_config(data: str, **data_fields: Any) -> ConfigDict:
  """All fields of UDH-ECC with their default values (docs/method.md#default-values).

  Args:
    data: Name of the data set.
    **data_fields: Fields of `udh_jax.data.registry.data_config` to set.
  """
  config = defaults.on_images("udh_ecc", data, data_fields)
  config.update(
    {
      # features -> cluster -> finetune, so many times, each from the teacher of the one before.
      "rounds": 2,
      "networks": 1,  # teachers of the last round: the mean of so many, from other seeds, goes on
      # min_size = max_size = 0: sizes are exactly floor or ceil of n / num_clusters; "auto": from a
      # quarter of that to four times it.
      "cluster": {
        "num_clusters": 10,
        "num_clusterings": 1,  # from other starts; the teacher learns one head for each
        # Images within this quantile of the distances to the own centroid are confident; the
        # teacher learns from these.
        "threshold_quantile": 1.0,
        "num_restarts": 10,
        "max_iterations": 50,
        "min_size": defaults.or_auto(0),
        "max_size": defaults.or_auto(0),
        **defaults.clustered_in(),
      },
      "finetune": defaults.training(label_smoothing=0.1),
      "soft_labels": {"temperature": 2.0, "batch_size": 64},
      # `start`: "teacher" begins at the fine-tuned teacher's weights, "random" from nothing. A
      # backbone that is "auto" is the teacher's.
      "student": {"backbone": defaults.or_auto(), "start": "teacher"},
      "distill": defaults.training(
        quantisation_weight=0.1,
        balance_weight=0.1,
        confidence_power=1.0,  # 0 trusts all soft labels alike
      ),
    }
  )
  return config


def plan(config: ConfigDict) -> Plan:
  """The method with its configuration; see ``configs/udh_ecc.py``.

  Stages that depend on the code length carry it in their names, so that one work directory can hold
  several lengths on the same teacher.
  """
  student = config.student
  if student.start == "teacher":
    require(
      student.backbone == config.teacher.backbone,
      f"student.start is 'teacher', but the student's backbone is {student.backbone} and the "
      f"teacher's {config.teacher.backbone}; set student.start to 'random' or the backbones alike.",
    )
    require_enough_features(config, "student.start='random'")
  frozen = frozen_stages(config, "finetune", "distill", clustering=cluster.STAGE)
  stays = frozen.stays
  require(
    student.start == "teacher" or config.distill.trained == "all",
    f"student.start is {student.start!r}, but distill.trained is {config.distill.trained!r}: what "
    "is not trained would stay random; set distill.trained to 'all' or student.start to 'teacher'.",
  )
  views = {"views": frozen.of("views")} if stays else {}
  rounds = []
  teacher = "teacher"
  for number in range(1, config.rounds + 1):
    rounds += [
      features_stage(config, number, teacher),
      *clustered_stages(config, number, cluster.STAGE),
    ]
    clustering = f"cluster_{number}"
    if number == 1:
      rounds += [baselines_stage(config), *frozen.before]
      teacher, clustering = frozen.teacher, frozen.clustering
    training = finetune.STAGE.with_options(seed_offset=number).named(
      f"finetune_{number}", teacher=teacher, clustering=clustering, **views
    )
    count = config.get("networks", 1) if number == config.rounds else 1  # earlier versions had one
    rounds += averaged_stages(config, training, count)
    teacher = training.name
  network, tuned = f"distill_{config.bits}bits", f"tuned_baselines_{config.bits}bits"
  roles = {"baselines": tuned}
  of_tuned = [baselines_stage(config, "tuned_baselines", "soft_labels")]
  rows = baselines_of(config, "tuned_baselines", ", fine-tuned teacher")
  if stays:
    roles, of_tuned, rows = {"features": frozen.features, **frozen.inputs}, [], ()
  after, published = stages_after_training(config, network, frozen)
  codes, drawings = guarded_codes_of(config, "UDH-ECC", frozen)
  return Plan(
    "UDH-ECC",
    (
      teacher_stage(config),
      *rounds,
      soft_labels.STAGE.named("soft_labels", teacher=teacher, **views),
      *of_tuned,
      distill.STAGE.named(network, teacher=teacher, soft_labels="soft_labels", **roles),
      *after,
    ),
    published,
    (*codes, *rows, *baselines_of(config)),
    clusters=frozen.clusterings(config.rounds),
    drawings=drawings,
    check=sizes_can_be_met(config.cluster),
  )
