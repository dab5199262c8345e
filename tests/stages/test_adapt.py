"""A network that is adapted: half what its training on pseudo labels made, half what it was."""

import jax
import numpy as np
import pytest
from by_hand import PLAIN, finished, teacher_of

from udh_jax.configuration import select
from udh_jax.methods import automatic, udh_ecc
from udh_jax.sharding import split_rows
from udh_jax.stages import adapt, finetune
from udh_jax.stages.network import backbone_variables, facts


def setting(context, *, share):
  config = udh_ecc.default_config("folder")
  automatic.on_any_pictures(config)
  config = automatic.provisional(config)
  config.teacher.update(backbone="small_convnet", image_size=8)
  config.cluster.update(num_clusters=4, num_clusterings=2)
  same = {"steps": 3, "batch_size": 12, "augment": PLAIN, "trained": "all"}
  config.adapt.update(share=share, **same)
  config.finetune.update(learning_rate=config.adapt.learning_rate, **same)
  config.finetune.head_learning_rate = config.adapt.head_learning_rate
  rng = np.random.default_rng(3)
  clustering = {
    "labels": split_rows(context.mesh, rng.integers(0, 4, (100, 2)).astype(np.int32)),
    "distances": split_rows(context.mesh, rng.random((100, 2)).astype(np.float32)),
    "threshold": np.ones(2, np.float32),
  }
  return config, {"teacher": teacher_of(context), "clustering": clustering}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_are_the_mean_of_before_and_after(context, share):
  config, inputs = setting(context, share=share)
  made = finished(adapt.STAGE.build(context, select(config, adapt.STAGE.fields), inputs))
  own = select(config, finetune.STAGE.fields)
  trained = finished(finetune.STAGE.build(context, own, inputs, seed_offset=1))
  before, after = backbone_variables(inputs["teacher"]), backbone_variables(trained)
  assert jax.tree.structure(made["variables"]) == jax.tree.structure(before)
  moved = 0.0
  for found, b, a in zip(*map(jax.tree.leaves, (made["variables"], before, after)), strict=True):
    np.testing.assert_allclose(found, (1 - share) * b + share * a, atol=1e-6)
    moved += float(np.abs(a - b).sum())
  assert moved > 0 and facts(made) == facts(inputs["teacher"])
