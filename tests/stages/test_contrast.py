"""CIBHash's training, and the teacher of one's own, against their losses written out."""

import jax
import numpy as np
import pytest
from by_hand import context_of, first_step, teacher_of

from udh_jax.configuration import select
from udh_jax.data.augmentation import augment
from udh_jax.losses.contrastive import nt_xent
from udh_jax.methods import cibhash, defaults
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD
from udh_jax.sharding import split_rows
from udh_jax.stages import contrast, teacher

COLOURED = defaults.augmentation(
  crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, color=0.8
)


@pytest.fixture(params=[70, 5], ids=lambda images: f"{images} images")
def context(request):
  """So many training images: of 5 each is in a batch of 12 several times."""
  return context_of(1, size=100, train=np.arange(20, 20 + request.param), first=10)


@pytest.fixture
def config():
  config = cibhash.default_config("digits")
  config.bits, config.student.image_size = 12, 8
  config.contrast.update(steps=1, batch_size=12, temperature=0.5, divergence_weight=0.2)
  return config


def test_codes_of_two_views_are_contrasted_and_their_chances_brought_together(context, config):
  config.contrast.trained = "head"
  views = np.random.default_rng(4).normal(size=(100, 3, 128)).astype(np.float16)
  views[:, 2] = 100  # is kept apart
  inputs = {"teacher": teacher_of(context), "views": {"views": split_rows(context.mesh, views)}}
  rows, metrics, start = first_step(context, contrast.STAGE, config, inputs)
  # Which of the two views comes first changes nothing.
  hidden = views[rows, :2].astype(np.float32).swapaxes(0, 1)  # [2, 12, 128]
  relaxed = np.tanh(hidden @ start["hash"]["kernel"] + start["hash"]["bias"])
  codes = np.where(relaxed >= 0, 1.0, -1.0).reshape(24, 12)
  scores = codes @ codes.T / 12 / 0.5
  other_views = np.arange(24), (np.arange(24) + 12) % 24
  own = scores[other_views]
  scores[np.tile(rows[:, None] == rows, (2, 2))] = -np.inf  # all views of the image
  scores[other_views] = own
  contrastive = (np.log(np.exp(scores).sum(axis=1)) - own).mean()
  p, q = ((1 + relaxed.astype(np.float64)) / 2).clip(1e-6, 1 - 1e-6)
  both = (p - q) * (np.log(p / q) - np.log((1 - p) / (1 - q)))
  divergence = both.sum(axis=1).mean() / 2
  np.testing.assert_allclose(metrics["contrastive"], contrastive, rtol=1e-3)
  np.testing.assert_allclose(metrics["divergence"], divergence, rtol=1e-3)
  np.testing.assert_allclose(metrics["loss"], contrastive + 0.2 * divergence, rtol=1e-3)


def test_two_views_of_a_picture_are_not_one(context, config):
  config.contrast.update(trained="all", augment=COLOURED)
  _, metrics, _ = first_step(context, contrast.STAGE, config, {"teacher": teacher_of(context)})
  assert metrics["divergence"] > 1e-3  # of equal views it is 0


def test_a_teacher_of_ones_own_contrasts_two_views(context):
  config = cibhash.default_config("digits")
  config.teacher.update(backbone="small_convnet", image_size=8)
  config.pretrain.update(steps=1, batch_size=12, temperature=0.4, augment=COLOURED)
  work = teacher.CONTRASTIVE.build(context, select(config, teacher.CONTRASTIVE.fields), {})
  batch = next(work.batches(0))
  rows = np.asarray(batch["index"])
  start = jax.tree.map(np.asarray, work.state["parameters"])
  key = jax.random.fold_in(jax.random.wrap_key_data(work.state["key"]), 0)
  _, metrics = work.step(work.state, batch)

  def logits(key):
    views = augment(key, context.dataset.images[rows], rows, size=8, **COLOURED)
    views = (np.asarray(views) - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
    hidden = create_backbone("small_convnet").apply({"params": start["backbone"]}, views)
    return np.asarray(hidden) @ start["head"]["kernel"] + start["head"]["bias"]

  first, second = (logits(k) for k in jax.random.split(key))
  expected = nt_xent(first, second, temperature=0.4, rows=rows)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-3)
  assert abs(expected - nt_xent(first, first, temperature=0.4, rows=rows)) > 0.01 * expected
