"""Supervised training sees the labels of the training images, and no others."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from udh_jax.coding.centres import class_centres
from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.errors import InputError
from udh_jax.losses.registry import POINT_WISE
from udh_jax.methods import defaults, dhih
from udh_jax.models.registry import create_backbone
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.sharding import split_rows
from udh_jax.stages import supervised
from udh_jax.stages.network import facts, new_network

NAMES = ["cat", "dog", "ship"]
PLAIN = defaults.augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, color=0.0)


@pytest.fixture
def dataset(rng):
  """40 pictures; rows 10 to 29 are for training."""
  labels = (np.arange(40) % 3).astype(np.int32)
  rows = np.arange(40)
  return Dataset(
    name="made",
    images=rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8),
    image_shape=(8, 8, 3),
    labels=labels,
    names=[str(row) for row in rows],
    class_names=NAMES,
    splits=Splits(train=rows[10:30], database=rows[5:], query=rows[:5]),
    protocol="made",
    digest="",
  )


def several(dataset):
  """The same pictures with one or two labels each, and one training image without any."""
  labels = np.eye(3, dtype=bool)[dataset.labels]
  labels[::2] |= np.roll(labels[::2], 1, axis=1)
  labels[12] = False
  return dataclasses.replace(dataset, labels=labels)


def config_of(name, /, **loss):
  method = name if name in dhih.TITLES else f"dhih_{name}"
  config = dhih.default_config("digits", method=method)
  config.bits, config.student.image_size = 12, 8
  config.supervised.update(steps=2, batch_size=11, learning_rate=1e-2, augment=PLAIN)
  config.loss.update(loss)
  return select(config, supervised.STAGE.fields)


@pytest.fixture(scope="module")
def single():
  """A mesh of one device: quicker to compile for."""
  return mesh_lib.make_mesh(jax.devices()[:1])


def teacher_of(context):
  about = {
    "backbone": "small_convnet",
    "padding": "symmetric",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.3, 0.3, 0.3),
    "labels_used": "none",
    "source": "random",
    "sha256": "",
  }
  return new_network(context, create_backbone("small_convnet"), about, (1, 8, 8, 3), seed=0).stored


class Step(NamedTuple):
  rows: np.ndarray  # of the batch
  relaxed: np.ndarray  # codes at the start, of pictures as they are
  start: dict
  metrics: dict
  outputs: dict


def first_step(mesh, dataset, name, **loss):
  context = Context(mesh, dataset)
  work = supervised.supervised(context, config_of(name, **loss), {"teacher": teacher_of(context)})
  batch = next(work.batches(0))
  rows = np.asarray(batch["index"])
  rows = rows[rows >= 0]
  start = jax.tree.map(np.asarray, work.state["parameters"])
  views = (dataset.images[rows] / np.float32(255) - np.float32(0.5)) / np.float32(0.3)
  features = create_backbone("small_convnet").apply({"params": start["backbone"]}, views)
  relaxed = np.tanh(np.asarray(features) @ start["hash"]["kernel"] + start["hash"]["bias"])
  state, metrics = work.step(work.state, batch)
  metrics = {key: float(value) for key, value in metrics.items()}
  return Step(rows, relaxed, start, metrics, work.finish(state))


def log_softmax(logits):
  logits = logits - logits.max(axis=1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.slow
def test_labels_of_queries_and_database_never_reach_the_loss(single, dataset):
  other = dataset.labels.copy()
  outside = np.setdiff1d(np.arange(40), dataset.splits.train)
  other[outside] = (other[outside] + 1) % 3
  changed = dataclasses.replace(dataset, labels=other)
  first, second = (first_step(single, images, "scale") for images in (dataset, changed))
  jax.tree.map(
    np.testing.assert_array_equal, first.outputs["variables"], second.outputs["variables"]
  )
  assert first.metrics == second.metrics
  # Those of the training images do, by the definition of the loss.
  logits = first.relaxed @ first.start["head"]["kernel"]
  own = dataset.labels[first.rows][:, None] == np.arange(3)
  losses = -log_softmax(np.where(own, logits - abs(logits) / 2, logits))[own]
  np.testing.assert_allclose(first.metrics["classification"], losses.mean(), rtol=1e-3)
  quantisation = ((abs(first.relaxed) - 1) ** 2).mean()
  expected = losses.mean() + 0.1 * quantisation
  np.testing.assert_allclose(first.metrics["loss"], expected, rtol=1e-3)
  assert (
    "training labels (the hash network's alone): 20 images" in facts(first.outputs)["labels_used"]
  )


def test_a_network_that_stays_as_it_is_is_trained_on_its_features(single, dataset, rng):
  config, context = config_of("softmax"), Context(single, dataset)
  config.supervised.trained = "head"
  unit, length = rng.normal(size=(40, 128)), rng.uniform(1, 2, 40)
  centre = rng.normal(size=128).astype(np.float32)
  teacher = teacher_of(context)
  features = {
    "features": split_rows(single, unit.astype(np.float32)),
    "length": split_rows(single, length.astype(np.float32)),
    "centre": centre,
  }
  work = supervised.supervised(context, config, {"teacher": teacher, "features": features})
  batch = next(work.batches(0))
  assert "image" not in batch
  rows = np.asarray(batch["index"])
  rows = rows[rows >= 0]
  start = jax.tree.map(np.asarray, work.state["parameters"])
  hidden = (unit * length[:, None])[rows] + centre
  relaxed = np.tanh(hidden @ start["hash"]["kernel"] + start["hash"]["bias"])
  logits = log_softmax(relaxed @ start["head"]["kernel"])
  state, metrics = work.step(work.state, batch)
  expected = -logits[np.arange(len(rows)), dataset.labels[rows]].mean()
  np.testing.assert_allclose(metrics["classification"], expected, rtol=1e-3)
  found = work.finish(state)["variables"]["params"]["backbone"]
  jax.tree.map(np.testing.assert_array_equal, found, teacher["variables"]["params"])


@pytest.mark.parametrize("make", [lambda d: d, several], ids=["one label", "several"])
def test_images_that_are_not_for_training_have_no_label(dataset, make):
  dataset = make(dataset)
  known, train = supervised.training_labels(dataset), dataset.splits.train
  np.testing.assert_array_equal(known[train], dataset.labels[train])
  outside = np.delete(known, train, axis=0)
  np.testing.assert_array_equal(outside, -1 if known.ndim == 1 else False)


@pytest.mark.slow
def test_fixed_centres_are_said_and_a_row_filled_up_or_without_a_label_has_no_say(dataset, capsys):
  # 11 rows on 2 devices; image 12 has no label.
  dataset = several(dataset)
  step = first_step(mesh_lib.make_mesh(jax.devices()[:2]), dataset, "csq", quantisation_weight=0.5)
  assert capsys.readouterr().out.count("12 bits is not a power of two") == 1
  assert "head" not in step.start
  centres = class_centres(3, 12, seed=0)
  total = count = 0
  for row, relaxed in zip(step.rows, step.relaxed, strict=True):
    votes = dataset.labels[row] @ centres.codes.astype(int)
    bits = np.where(votes == 0, centres.tie_break, np.sign(votes))
    if dataset.labels[row].any():
      total, count = total - np.log((1 + bits * relaxed) / 2).mean(), count + 1
  assert count == len(step.rows) - (12 in step.rows)
  np.testing.assert_allclose(step.metrics["classification"], total / count, rtol=1e-3)
  expected = total / count + 0.5 * ((abs(step.relaxed) - 1) ** 2).mean()
  np.testing.assert_allclose(step.metrics["loss"], expected, rtol=1e-3)


@pytest.fixture
def batch(rng):
  """Relaxed codes, codes of the classes, labels."""
  labels = np.array([0, 2, 1, 1, 0, 2, 0])
  relaxed, codes = np.tanh(rng.normal(size=(7, 16))), rng.normal(size=(3, 16))
  return relaxed.astype(np.float32), codes.astype(np.float32), labels


def terms(name, relaxed, codes, labels):
  classes = {"codes": codes, "tie_break": np.ones(16)}
  settings = dhih.default_config("digits", method=name).loss
  return POINT_WISE[name].terms(relaxed, classes, labels, 0, np.ones(7, np.float32), settings)


def test_greedyhash_classifies_signs_and_lets_the_gradient_through(batch):
  relaxed, codes, labels = batch
  classification, penalty = terms("greedyhash", relaxed, codes, labels)
  logits = np.where(relaxed >= 0, 1, -1) @ codes.T
  expected = -log_softmax(logits)[np.arange(7), labels].mean()
  np.testing.assert_allclose(classification, expected, rtol=1e-5)
  np.testing.assert_allclose(penalty, (abs(abs(relaxed) - 1) ** 3).mean(), rtol=1e-5)
  gradient = jax.grad(lambda u: terms("greedyhash", u, codes, labels)[0])(relaxed)
  expected = (np.exp(log_softmax(logits)) - np.eye(3)[labels]) @ codes / 7
  np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)


def test_orthohash_has_a_margin_on_the_cosine_and_the_root_of_the_bits_for_a_scale(batch):
  relaxed, _, labels = batch
  codes = class_centres(3, 16, seed=0).codes.astype(np.float32)
  classification, _ = terms("orthohash", relaxed, codes, labels)
  cosines = relaxed @ codes.T / np.linalg.norm(relaxed, axis=1, keepdims=True) / 4
  logits = 4 * (cosines - 0.3 * np.eye(3)[labels])
  expected = -log_softmax(logits)[np.arange(7), labels].mean()
  np.testing.assert_allclose(classification, expected, rtol=1e-5)


def test_every_method_has_a_loss_of_its_own_name():
  for name in dhih.TITLES:
    assert dhih.default_config("digits", method=name).loss.name == dhih.loss_name(name)
  assert {dhih.loss_name(method) for method in dhih.TITLES} == set(POINT_WISE)


def relabelled(dataset, row, label):
  labels = dataset.labels.copy()
  labels[row] = label
  return dataclasses.replace(dataset, labels=labels)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda d: dataclasses.replace(d, labels=None), "made has no labels"),
    (lambda d: relabelled(d, 11, 3), r"1 of 20 training labels are outside 0\.\.2 .*is 3"),
    (lambda d: relabelled(d, 11, -1), r"outside 0\.\.2 \(the first is -1\)"),
    (
      lambda d: dataclasses.replace(d, labels=np.minimum(d.labels, 1)),
      "1 of 3 classes have no training image .*'ship'",
    ),
    (
      lambda d: dataclasses.replace(d, labels=np.eye(3, dtype=bool)[np.minimum(d.labels, 1)]),
      "'ship'",
    ),
    (
      lambda d: dataclasses.replace(d, labels=np.eye(4, dtype=bool)[d.labels]),
      "labels have 4 columns, but there are 3 classes",
    ),
  ],
)
def test_labels_that_cannot_be_learned_are_refused_in_one_line(dataset, change, message):
  with pytest.raises(InputError, match=message) as error:
    supervised.training_labels(change(dataset))
  assert "\n" not in str(error.value)


def test_a_label_outside_of_a_query_is_nobodys_business(dataset):
  supervised.training_labels(relabelled(dataset, 0, 77))


def test_a_loss_of_another_method_or_none_is_refused(single, dataset):
  with pytest.raises(InputError, match=r"loss\.name is 'magic'; choose one of a_softmax, arcface"):
    supervised.supervised(Context(single, dataset), config_of("scale", name="magic"), {})
  config = ConfigDict({"method": "csq", "loss": {"name": "scale"}})
  with pytest.raises(InputError, match="method 'csq' has 'csq'; choose the preset"):
    dhih.plan(config)


def psi(theta, m):
  """By sectors: the k with theta in [k pi / m, (k + 1) pi / m]."""
  k = np.floor(theta * m / np.pi)
  return (-1) ** k * np.cos(m * theta) - 2 * k


def test_members_of_the_family_have_the_margin_and_the_annealing_of_their_fields(batch):
  relaxed, codes, labels = (np.asarray(x, np.float64) for x in batch)
  labels = labels.astype(int)
  product = relaxed @ codes.T
  length, width = (np.linalg.norm(x, axis=1) for x in (relaxed, codes))
  cosine = product / length[:, None] / width
  theta = np.arccos(cosine)
  plain = length[:, None] * cosine  # of a_softmax, at step 10
  slow, least = 1000 / (1 + 5 * 10), 5.0
  expected = {
    "l_softmax": (product, length[:, None] * width * psi(theta, 2), max(1.0, slow)),
    "a_softmax": (plain, length[:, None] * psi(theta, 4), max(least, slow)),
    "cosface": (16 * cosine, 16 * (cosine - 0.2), 0.0),
    "arcface": (16 * cosine, 16 * np.cos(theta + 0.2), 0.0),
  }
  assert (theta[np.arange(7), labels] < np.pi - 0.2).all()
  for name, (other, own, weight) in expected.items():
    own = (weight * other + own) / (1 + weight)
    logits = log_softmax(np.where(labels[:, None] == np.arange(3), own, other))
    settings = dhih.default_config("digits", method=f"dhih_{name}").loss
    classification, quantisation = POINT_WISE[name].terms(
      jnp.asarray(relaxed, jnp.float32),
      {"codes": jnp.asarray(codes, jnp.float32)},
      labels.astype(np.int32),
      10,
      np.ones(7, np.float32),
      settings,
    )
    loss = -logits[np.arange(7), labels].mean()
    np.testing.assert_allclose(classification, loss, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(quantisation, ((abs(relaxed) - 1) ** 2).mean(), rtol=1e-4)
