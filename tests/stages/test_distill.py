"""The student's distillation written out."""

import numpy as np
from by_hand import PLAIN, first_step, teacher_of

from udh_jax.methods import udh_ecc
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD
from udh_jax.sharding import split_rows
from udh_jax.stages import distill


def test_soft_labels_are_learned_by_their_confidence(context):
  config = udh_ecc.default_config("digits")
  config.bits, config.soft_labels.temperature = 12, 2.0
  config.student.update(backbone="small_convnet", start="random", image_size=8)
  config.cluster.update(num_clusters=4, num_clusterings=2)
  config.distill.update(steps=1, batch_size=12, augment=PLAIN, confidence_power=3.0)
  config.distill.update(quantisation_weight=0.4, balance_weight=0.7)
  rng = np.random.default_rng(3)
  probabilities = rng.dirichlet(np.ones(4), (100, 2)).astype(np.float32)
  confidence = rng.random(100).astype(np.float32)
  labels = {"probabilities": probabilities, "confidence": confidence}
  labels = {name: split_rows(context.mesh, values) for name, values in labels.items()}
  inputs = {"teacher": teacher_of(context), "soft_labels": labels}
  rows, metrics, start = first_step(context, distill.STAGE, config, inputs)
  views = (context.dataset.images[rows] / np.float32(255) - IMAGENET_MEAN) / IMAGENET_STD
  backbone = create_backbone("small_convnet")
  hidden = np.asarray(backbone.apply({"params": start["backbone"]}, views.astype(np.float32)))
  relaxed = np.tanh(hidden @ start["hash"]["kernel"] + start["hash"]["bias"])
  z = (relaxed @ start["head"]["kernel"]).reshape(12, 2, 4) / 2
  log_student = z - np.log(np.exp(z).sum(axis=2, keepdims=True))
  p = probabilities[rows]
  each = (p * (np.log(p) - log_student)).sum(axis=2).mean(axis=1)  # over the clusterings
  divergence = 2**2 * np.average(each, weights=confidence[rows] ** 3)
  quantisation = ((abs(relaxed) - 1) ** 2).mean()
  balance = (relaxed.mean(axis=0) ** 2).mean()
  np.testing.assert_allclose(metrics["divergence"], divergence, rtol=2e-3)
  np.testing.assert_allclose(metrics["quantisation"], quantisation, rtol=2e-3)
  np.testing.assert_allclose(metrics["balance"], balance, rtol=2e-3)
  expected = divergence + 0.4 * quantisation + 0.7 * balance
  np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-3)
