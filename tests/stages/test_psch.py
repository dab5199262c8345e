"""PSCH's training against its loss written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from by_hand import (
  config_of,
  expected_pairs,
  finished,
  first_step,
  parts_of,
  plain_views,
  structure_of,
  teacher_of,
)

from udh_jax.configuration import select
from udh_jax.models.registry import create_backbone
from udh_jax.sharding import split_rows
from udh_jax.stages import baselines
from udh_jax.stages import psch as psch_stage


@pytest.mark.parametrize(
  "choice", [pytest.param("parts", marks=pytest.mark.slow), "structure", "classifier on features"]
)
def test_psch_trains_on_part_similarity_of_the_frozen_network(context, features, clustered, choice):
  changes = {"apart": -0.5}
  if choice == "structure":
    changes |= {"unsure": "structure", "similarity": "one"}
  if choice == "classifier on features":
    changes |= {"classifier": "features", "similarity": "one"}
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
  if choice != "parts":
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
  read = hidden if choice == "classifier on features" else relaxed
  logits = (np.asarray(read) @ start["head"]["kernel"]).reshape(
    12, 2, 4
  )  # a head for each clustering
  log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
  row, h = np.nonzero(labels >= 0)
  classification = -log_p[row, h, labels[row, h]].mean()
  np.testing.assert_allclose(metrics["classification"], classification, rtol=2e-3)
  quantisation = ((abs(relaxed) - 1) ** 2).mean()
  np.testing.assert_allclose(metrics["quantisation"], quantisation, rtol=2e-3)
  total = metrics["pairs"] + metrics["classification"] + 0.1 * metrics["quantisation"]
  assert metrics["loss"] == pytest.approx(total, rel=1e-5)


def test_a_layer_that_is_trained_alone_reads_features_and_is_handed_on_halfway(
  context, features, clustered
):
  config = config_of("psch", psch={"similarity": "one", "hash_start": "itq"})
  config.psch.classifier = "features"  # of the rounds before: here it would teach nothing
  config.layer.update(steps=3, batch_size=10, learning_rate=0.01)
  teacher, length = teacher_of(context), np.linspace(1, 3, len(features), dtype=np.float32)
  rng = np.random.default_rng(5)
  rows = np.concatenate([features, rng.normal(size=(len(features), 112))], axis=1)
  rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
  centre = rng.normal(size=128).astype(np.float32)
  inputs = {
    "teacher": teacher,
    "features": {
      "features": split_rows(context.mesh, rows),
      "length": split_rows(context.mesh, length),
      "centre": centre,
    },
    "clustering": clustered,
  }
  own = select(config, baselines.STAGE.fields)
  inputs["baselines"] = finished(baselines.baselines(context, own, inputs))
  stage = psch_stage.LAYER
  work = stage.build(context, select(config, stage.fields), inputs)
  start, batch = jax.tree.map(np.array, work.state["parameters"]), next(work.batches(0))
  assert start.keys() == {"hash", "head"} and start["head"]["kernel"].shape[0] == 12
  assert work.num_steps == 3 and "image" not in batch
  _, metrics = work.step(jax.tree.map(jnp.copy, work.state), batch)
  index = np.asarray(batch["index"])
  index = index[index >= 0]
  # The loss is of the features as the network made them.
  made = rows[index] * length[index, None] + centre
  codes = np.tanh(made @ start["hash"]["kernel"] + start["hash"]["bias"])
  distances, labels = (np.asarray(clustered[name])[index] for name in ("distances", "labels"))
  labels = np.where(distances <= np.asarray(clustered["threshold"]), labels, -1)
  each = np.stack([(one[:, None] >= 0) & (one >= 0) for one in labels.T])
  same = np.stack([one[:, None] == one for one in labels.T])
  targets = np.sum(each & same, axis=0) / np.maximum(each.sum(axis=0), 1)
  expected = (each.mean(axis=0) * (codes @ codes.T / 12 - targets) ** 2).mean()
  np.testing.assert_allclose(metrics["pairs"], expected, rtol=2e-3)
  state = work.state
  for batch in work.batches(0):
    state, _ = work.step(state, batch)
  found = work.finish(state)["variables"]["params"]
  for name in ("kernel", "bias"):
    ended = np.asarray(state["parameters"]["hash"][name])
    assert not np.allclose(ended, start["hash"][name], atol=1e-3)
    np.testing.assert_allclose(
      found["hash"][name], (ended + start["hash"][name]) / 2, rtol=1e-4, atol=1e-6
    )
  backbone = teacher["variables"]["params"]
  jax.tree.map(np.testing.assert_array_equal, dict(found["backbone"]), dict(backbone))
