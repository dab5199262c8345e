"""Stages of PSCH and SSDH on made features, against plain numpy."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.coding.binary import unpack_codes
from udh_jax.configuration import select
from udh_jax.data.protocol import PAIRS, Splits, permutation
from udh_jax.data.types import Dataset
from udh_jax.errors import InputError
from udh_jax.methods import defaults, psch
from udh_jax.methods import ssdh as ssdh_method
from udh_jax.models.registry import create_backbone
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.sharding import split_rows
from udh_jax.stages import baselines, pseudo_labels, ssdh, structure
from udh_jax.stages import features as features_stage
from udh_jax.stages import parts as parts_stage
from udh_jax.stages import psch as psch_stage
from udh_jax.stages.hash_network import pairwise_network
from udh_jax.stages.network import new_network

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PLAIN = defaults.augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, color=0.0)


@pytest.fixture(scope="module")
def context():
  """100 pictures without labels, on one device; rows 20 to 89 are for training."""
  rows = np.arange(100)
  dataset = Dataset(
    name="made",
    images=np.random.default_rng(1).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8),
    image_shape=(8, 8, 3),
    labels=None,
    names=[str(row) for row in rows],
    class_names=[],
    splits=Splits(train=rows[20:90], database=rows[10:], query=rows[:10]),
    protocol="made",
    digest="",
  )
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  return Context(mesh, dataset)


@pytest.fixture(scope="module")
def features():
  rng = np.random.default_rng(2)
  centres = rng.normal(size=(4, 16)) * 3
  return (centres[rng.integers(0, 4, 100)] + rng.normal(size=(100, 16))).astype(np.float32)


def teacher_of(context):
  about = {
    "backbone": "small_convnet",
    "padding": "symmetric",
    "mean": MEAN,
    "std": STD,
    "labels_used": "none",
    "source": "random",
    "sha256": "",
  }
  return new_network(context, create_backbone("small_convnet"), about, (1, 8, 8, 3), seed=0).stored


def config_of(method, **sections):
  config = {"psch": psch, "ssdh": ssdh_method}[method].default_config("digits")
  config.bits, config.student.image_size, config.features.image_sizes = 12, 8, (8,)
  config.teacher.backbone = "small_convnet"
  config.structure.num_images = 50
  if method == "psch":
    config.cluster.num_clusters = 4
  config[method].update(steps=1, batch_size=12, augment=PLAIN, hash_start="random")
  for section, values in sections.items():
    config[section].update(values)
  return config


@pytest.fixture(scope="module")
def clustered(context, features):
  config = config_of("psch")
  placed = {"features": split_rows(context.mesh, features)}
  work = pseudo_labels.pseudo_labels(
    context, select(config, pseudo_labels.STAGE.fields), {"features": placed}
  )
  return work.finish(work.state)


def test_the_threshold_leaves_the_nearest_part_of_the_training_images(clustered, features):
  labels = np.asarray(clustered["labels"])[:100, 0]
  assert (labels[20:90] >= 0).all() and (np.r_[labels[:20], labels[90:]] == -1).all()
  centroids = np.stack([features[labels == k].mean(axis=0) for k in range(4)])
  np.testing.assert_allclose(clustered["centroids"], centroids, atol=1e-4)
  distances = np.linalg.norm(features[20:90] - centroids[labels[20:90]], axis=1)
  np.testing.assert_allclose(np.asarray(clustered["distances"])[20:90], distances, rtol=1e-4)
  near = np.sort(np.argsort(distances)[:56]) + 20  # 0.8 of 70
  confident = pseudo_labels.confident_labels(
    clustered["labels"], clustered["distances"], clustered["threshold"]
  )
  confident = np.asarray(confident)[:100]
  np.testing.assert_array_equal(np.flatnonzero(confident >= 0), near)
  np.testing.assert_array_equal(confident[near], labels[near])


@pytest.mark.parametrize(
  ("quantile", "message"),
  [
    (0.0, "threshold_quantile is 0.0; it has to be above 0"),
    (1.1, "at most 1"),
    (0.03, "leaves 3 of 70 images confident, fewer than the 4 clusters"),
  ],
)
def test_a_threshold_that_leaves_too_few_images_is_refused(quantile, message):
  with pytest.raises(InputError, match=message) as error:
    pseudo_labels.confident_count(70, quantile, 4)
  assert "\n" not in str(error.value)


def test_the_whole_quantile_leaves_all_images_confident():
  assert pseudo_labels.confident_count(70, 1.0, 70) == 70
  assert pseudo_labels.confident_count(50000, 0.8, 10) == 40000


def structure_of(context, features, config):
  placed = {"features": split_rows(context.mesh, features)}
  work = structure.structure(context, select(config, structure.STAGE.fields), {"features": placed})
  return work.finish(work.state)


def test_the_structure_is_that_of_a_sample_of_the_training_images(context, features):
  found = structure_of(context, features, config_of("ssdh"))
  sample = features[20:90][permutation(70, 0, PAIRS)[:50]].astype(np.float64)
  sample /= np.linalg.norm(sample, axis=1, keepdims=True)
  distances = (1 - sample @ sample.T)[~np.eye(50, dtype=bool)]
  counts, edges = np.histogram(distances, bins=200, range=(0, 2))
  mode = edges[counts.argmax()] + 0.005
  np.testing.assert_allclose(found["mode"], mode, rtol=1e-5)
  left = np.sqrt(((distances[distances <= mode] - mode) ** 2).mean())
  np.testing.assert_allclose(found["left_deviation"], left, rtol=1e-3)
  with pytest.raises(InputError, match=r"structure\.num_images is 1"):
    structure_of(context, features, config_of("ssdh", structure={"num_images": 1}))


def finished(work):
  """Outputs of a stage, run to its end."""
  state = work.state
  for batch in work.batches(0) if work.batches else ():
    state, _ = work.step(state, batch)
  return work.finish(state)


def parts_of(context, teacher, config):
  work = parts_stage.parts(context, select(config, parts_stage.STAGE.fields), {"teacher": teacher})
  return finished(work)


def test_parts_come_with_the_features_of_the_same_reading(context):
  config, teacher = config_of("psch"), teacher_of(context)
  size = config.features.image_sizes[0]
  alone = features_stage.features(
    context, select(config, features_stage.STAGE.fields), {"teacher": teacher}, image_size=size
  )
  expected, found = finished(alone), parts_of(context, teacher, config)
  assert found.keys() == {*expected, "parts"}
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)


def first_step(context, stage, config, inputs):
  """Rows and metrics of the first step, and the start parameters."""
  work = stage.build(context, select(config, stage.fields), inputs)
  batch = next(work.batches(0))
  rows = np.asarray(batch["index"])
  start = jax.tree.map(np.asarray, work.state["parameters"])
  _, metrics = work.step(work.state, batch)
  return rows[rows >= 0], {name: float(value) for name, value in metrics.items()}, start


def plain_views(context, rows):
  return (context.dataset.images[rows] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)


def expected_pairs(context, rows, start, targets, known):
  """The pair term from the start parameters, pair by pair."""
  backbone = create_backbone("small_convnet")
  hidden = np.asarray(backbone.apply({"params": start["backbone"]}, plain_views(context, rows)))
  codes = np.tanh(hidden @ start["hash"]["kernel"] + start["hash"]["bias"])
  return (known * (codes @ codes.T / 12 - targets) ** 2).mean()


@pytest.mark.parametrize("choice", ["parts", "structure"])
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
  distances, labels = (np.asarray(clustered[k]).reshape(-1)[rows] for k in ("distances", "labels"))
  labels = np.where(distances <= float(clustered["threshold"]), labels, -1)
  known = (labels[:, None] >= 0) & (labels >= 0)
  assert known.any() and not known.all()
  targets = np.where(labels[:, None] == labels, similarity, -0.5)
  weights = known.astype(float)
  if choice == "structure":
    unit = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
    distances = 1 - unit @ unit.T
    fitted = {name: float(value) for name, value in inputs["structure"].items()}
    signs = 1.0 * (distances < fitted["mode"] - 2 * fitted["left_deviation"])
    signs -= distances > fitted["mode"] + 2 * fitted["right_deviation"]
    targets, weights = np.where(known, targets, signs), np.where(known, 1, abs(signs))
  expected = expected_pairs(context, rows, start, targets, weights)
  np.testing.assert_allclose(metrics["pairs"], expected, rtol=2e-3)
  total = metrics["pairs"] + metrics["classification"] + 0.1 * metrics["quantisation"]
  assert metrics["loss"] == pytest.approx(total, rel=1e-5)


def test_ssdh_trains_on_the_signs_of_its_structure(context, features):
  config = config_of("ssdh", structure={"deviations": 0.5})
  inputs = {
    "teacher": teacher_of(context),
    "features": {"features": split_rows(context.mesh, features)},
    "structure": structure_of(context, features, config),
  }
  rows, metrics, start = first_step(context, ssdh.STAGE, config, inputs)
  unit = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
  distances = 1 - unit @ unit.T
  fitted = {name: float(value) for name, value in inputs["structure"].items()}
  signs = 1.0 * (distances < fitted["mode"] - 0.5 * fitted["left_deviation"])
  signs -= distances > fitted["mode"] + 0.5 * fitted["right_deviation"]
  assert set(np.unique(signs)) == {-1, 0, 1}
  expected = expected_pairs(context, rows, start, signs, abs(signs))
  np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-3)


def test_the_hash_layer_may_start_at_itqs_codes(context, features, clustered):
  outputs = {
    "features": split_rows(context.mesh, features),
    "length": split_rows(context.mesh, np.ones(100, np.float32)),
    "centre": np.zeros(16, np.float32),
  }
  config = config_of("ssdh")
  fitted = finished(
    baselines.baselines(context, select(config, baselines.STAGE.fields), {"features": outputs})
  )
  inputs = {"teacher": teacher_of(context), "features": outputs, "baselines": fitted}
  network = pairwise_network(context, config, inputs, num_classes=4, start="itq")
  hash_layer = network.parameters["hash"]
  signs = np.sign(features @ hash_layer["kernel"] + hash_layer["bias"])
  itq = np.asarray(unpack_codes(np.asarray(fitted["itq"])[:100], 12))
  np.testing.assert_array_equal(signs, itq)
  np.testing.assert_array_equal(network.parameters["head"]["kernel"], 0)
  assert network.fresh == {"head"}  # zeros know nothing; the others were given values
  random = pairwise_network(context, config, inputs, num_classes=0, start="random")
  assert random.fresh == {"hash"}
  with pytest.raises(InputError, match="hash_start is 'pca'"):
    pairwise_network(context, config, {}, num_classes=0, start="pca")
  narrow = {name: value for name, value in fitted.items() if name != "itq_function"}
  with pytest.raises(InputError, match="fewer features than there are bits"):
    pairwise_network(context, config, inputs | {"baselines": narrow}, num_classes=0, start="itq")


@pytest.mark.parametrize(
  ("section", "values", "message"),
  [
    ("parts", {"groups": 7}, "128 channels cannot be split into 7 equal groups"),
    ("psch", {"similarity": "soft"}, "psch.similarity is 'soft'; choose one of parts, one"),
    ("psch", {"apart": -2.0}, "psch.apart is -2.0; choose one from -1 to 1"),
    ("psch", {"unsure": "drop"}, "psch.unsure is 'drop'; choose one of ignore, structure"),
  ],
)
def test_a_configuration_without_sense_is_refused_before_anything_runs(section, values, message):
  config: ConfigDict = config_of("psch", **{section: values})
  with pytest.raises(InputError, match=message) as error:
    psch.plan(config)
  assert "\n" not in str(error.value)


def test_what_is_not_read_has_no_stage():
  usual = psch.plan(config_of("psch")).stages
  names = [stage.name for stage in usual]
  assert "structure" not in names and any("parts" in stage.fields for stage in usual)
  hard = psch.plan(config_of("psch", psch={"similarity": "one"})).stages
  assert not any("parts" in stage.fields for stage in hard)
  with_structure = psch.plan(config_of("psch", psch={"unsure": "structure"})).stages
  assert [stage.name for stage in with_structure if stage.name not in names] == ["structure"]
