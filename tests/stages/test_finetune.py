"""The teacher's fine-tuning on confident pseudo labels, written out."""

import numpy as np
import pytest
from by_hand import PLAIN, first_step, plain_views, teacher_of

from udh_jax.methods import udh_ecc
from udh_jax.models.registry import create_backbone
from udh_jax.sharding import split_rows
from udh_jax.stages import finetune


@pytest.mark.parametrize("quantile", [1.0, 0.5])
def test_only_confident_labels_are_learned(context, quantile):
  config = udh_ecc.default_config("digits")
  config.teacher.update(backbone="small_convnet", image_size=8)
  config.cluster.update(num_clusters=4, num_clusterings=2)
  config.finetune.update(steps=1, batch_size=12, augment=PLAIN)
  rng = np.random.default_rng(3)
  labels = rng.integers(0, 4, (100, 2)).astype(np.int32)
  distances = rng.random((100, 2)).astype(np.float32)
  threshold = np.quantile(distances, quantile, axis=0).astype(np.float32)
  placed = {
    "labels": split_rows(context.mesh, labels),
    "distances": split_rows(context.mesh, distances),
    "threshold": threshold,
  }
  teacher = teacher_of(context)
  stage = finetune.STAGE.with_options(seed_offset=1)
  rows, metrics, start = first_step(
    context, stage, config, {"teacher": teacher, "clustering": placed}
  )
  hidden = create_backbone("small_convnet").apply(teacher["variables"], plain_views(context, rows))
  logits = np.asarray(hidden) @ start["head"]["kernel"] + start["head"]["bias"]
  losses, right = [], []
  for i, row in enumerate(rows):
    for h in range(2):
      if distances[row, h] <= threshold[h]:
        z = logits[i].reshape(2, 4)[h].astype(np.float64)
        log_p = z - np.log(np.exp(z).sum())
        target = np.full(4, 0.1 / 4) + 0.9 * (np.arange(4) == labels[row, h])
        losses.append(-(target * log_p).sum())
        right.append(z.argmax() == labels[row, h])
  assert (len(losses) == 24) == (quantile == 1.0)
  np.testing.assert_allclose(metrics["loss"], np.mean(losses), rtol=1e-3)
  np.testing.assert_allclose(metrics["agreement"], np.mean(right), atol=1e-6)
