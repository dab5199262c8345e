"""PSCH's training against its loss written out."""

import numpy as np
import pytest
from by_hand import (
  config_of,
  expected_pairs,
  first_step,
  parts_of,
  plain_views,
  structure_of,
  teacher_of,
)

from udh_jax.models.registry import create_backbone
from udh_jax.sharding import split_rows
from udh_jax.stages import psch as psch_stage


@pytest.mark.parametrize("choice", [pytest.param("parts", marks=pytest.mark.slow), "structure"])
def test_psch_trains_on_part_similarity_of_the_frozen_network(context, features, clustered, choice):
  changes = {"apart": -0.5}
  if choice == "structure":
    changes |= {"unsure": "structure", "similarity": "one"}
  config = config_of("psch", psch=changes)
  teacher = teacher_of(context)
  inputs = {
    "teacher": teacher,
    "features": {
      "features": split_rows(context.mesh, features),
      "parts": parts_of(context, teacher, config)["parts"],
    },
    "clustering": clustered,
    "structure": structure_of(context, features, config),
  }
  rows, metrics, start = first_step(context, psch_stage.STAGE, config, inputs)
  # What the network is at the start is the frozen network, and images are not augmented.
  maps = create_backbone("small_convnet").apply(
    teacher["variables"], plain_views(context, rows), pooled=False
  )
  maps = np.asarray(maps, np.float64)  # [12, 2, 2, 128]
  groups = maps.reshape(12, 4, 8, 16)
  attention = np.exp(groups.mean(axis=3))
  attention /= attention.sum(axis=1, keepdims=True)
  parts = (groups * attention[..., None]).sum(axis=1)  # [12, 8, 16]
  parts /= np.linalg.norm(parts, axis=2, keepdims=True)
  similarity = np.einsum("igc,jgc->ij", parts, parts) / 8
  if choice == "structure":
    similarity = np.ones((12, 12))
  distances, labels = (np.asarray(clustered[name])[rows] for name in ("distances", "labels"))
  labels = np.where(distances <= np.asarray(clustered["threshold"]), labels, -1)
  each = [(one[:, None] >= 0) & (one >= 0) for one in labels.T]  # for each clustering [12, 12]
  said = [np.where(one[:, None] == one, similarity, -0.5) for one in labels.T]
  weights = np.mean(each, axis=0)
  known = weights > 0
  assert known.any() and not known.all()
  targets = np.sum(np.multiply(each, said), axis=0) / np.maximum(np.sum(each, axis=0), 1)
  if choice == "structure":
    unit = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    fitted = {name: float(value) for name, value in inputs["structure"].items()}
    signs = 1.0 * (distances < fitted["mode"] - 2 * fitted["left_deviation"])
    signs -= distances > fitted["mode"] + 2 * fitted["right_deviation"]
    targets, weights = np.where(known, targets, signs), np.where(known, weights, abs(signs))
  expected = expected_pairs(context, rows, start, targets, weights)
  np.testing.assert_allclose(metrics["pairs"], expected, rtol=2e-3)
  hidden = create_backbone("small_convnet").apply(
    {"params": start["backbone"]}, plain_views(context, rows)
  )
  relaxed = np.tanh(np.asarray(hidden) @ start["hash"]["kernel"] + start["hash"]["bias"])
  logits = (relaxed @ start["head"]["kernel"]).reshape(12, 2, 4)  # a head for each clustering
  log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
  row, h = np.nonzero(labels >= 0)
  classification = -log_p[row, h, labels[row, h]].mean()
  np.testing.assert_allclose(metrics["classification"], classification, rtol=2e-3)
  quantisation = ((abs(relaxed) - 1) ** 2).mean()
  np.testing.assert_allclose(metrics["quantisation"], quantisation, rtol=2e-3)
  total = metrics["pairs"] + metrics["classification"] + 0.1 * metrics["quantisation"]
  assert metrics["loss"] == pytest.approx(total, rel=1e-5)
