"""BiHalf's training against its loss written out."""

import numpy as np
import pytest
from by_hand import config_of, first_step, plain_views, teacher_of

from udh_jax.models.registry import create_backbone
from udh_jax.sharding import split_rows
from udh_jax.stages import bihalf


@pytest.mark.parametrize("trained", ["all", "head"])
def test_bihalf_trains_on_the_cosines_of_features(context, rng, trained):
  config = config_of("bihalf", bihalf={"trained": trained, "entropy_weight": 6.0})
  features = rng.normal(size=(len(context.dataset.images), 128)).astype(np.float32)
  length, centre = np.full(len(features), 2, np.float32), np.full(128, 0.1, np.float32)
  inputs = {
    "teacher": teacher_of(context),
    "features": {
      "features": split_rows(context.mesh, features),
      "length": split_rows(context.mesh, length),
      "centre": centre,
    },
  }
  rows, metrics, start = first_step(context, bihalf.STAGE, config, inputs)
  hidden = 2 * features[rows] + centre  # what a backbone that stays as it is has made
  if trained == "all":
    backbone = create_backbone("small_convnet")
    hidden = np.asarray(backbone.apply({"params": start["backbone"]}, plain_views(context, rows)))
  relaxed = np.tanh(hidden @ start["hash"]["kernel"] + start["hash"]["bias"])
  codes = -np.ones_like(relaxed)
  for bit in range(12):
    codes[np.argsort(-relaxed[:, bit])[: len(rows) // 2], bit] = 1
  unit = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
  similarity = ((codes @ codes.T / 12 - unit @ unit.T) ** 2).mean()
  distance = ((relaxed - codes) ** 2).mean()
  np.testing.assert_allclose(metrics["similarity"], similarity, rtol=2e-3)
  np.testing.assert_allclose(metrics["distance"], distance, rtol=2e-3)
  np.testing.assert_allclose(metrics["loss"], similarity + 3 * distance, rtol=2e-3)
