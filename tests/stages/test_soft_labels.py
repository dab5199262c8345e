import jax.numpy as jnp
import numpy as np
from by_hand import teacher_of

from udh_jax.configuration import select
from udh_jax.methods import udh_ecc
from udh_jax.models.heads import Classifier
from udh_jax.models.registry import create_backbone
from udh_jax.sharding import split_rows
from udh_jax.stages import soft_labels
from udh_jax.stages.network import facts, new_network
from udh_jax.stages.soft_labels import agreement


def test_views_agree_fully_with_themselves_and_not_at_all_with_another_class():
  certain = jnp.eye(3)[:, None]
  np.testing.assert_allclose(agreement(certain, certain), 1.0)
  np.testing.assert_allclose(agreement(certain, certain[jnp.array([1, 2, 0])]), 0.0)


def test_agreement_is_the_mean_cosine(rng):
  first, second = rng.dirichlet(np.ones(3), (2, 5, 4))
  lengths = np.linalg.norm(first, axis=2) * np.linalg.norm(second, axis=2)
  expected = ((first * second).sum(axis=2) / lengths).mean(axis=1)
  np.testing.assert_allclose(agreement(first, second), expected, rtol=1e-5)


def test_predictions_of_two_views_are_softened_and_their_mean_taken(context, rng):
  config = udh_ecc.default_config("digits")
  config.teacher.update(backbone="small_convnet", image_size=8)
  config.cluster.update(num_clusters=4, num_clusterings=2)
  config.soft_labels.temperature = 3.0
  module = Classifier(create_backbone("small_convnet"), 8)
  about = facts(teacher_of(context))
  network = new_network(context, module, about, (1, 8, 8, 3), seed=0).stored
  views = 3 * rng.normal(size=(100, 3, 128)).astype(np.float16)
  inputs = {"teacher": network, "views": {"views": split_rows(context.mesh, views)}}
  own = select(config, soft_labels.STAGE.fields)
  found = soft_labels.soft_labels(context, own, inputs).finish({})
  head = network["variables"]["params"]["head"]
  logits = views[:, :2].astype(np.float32) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
  logits = logits.reshape(100, 2, 2, 4)  # [rows, views, clusterings, classes]

  def softmax(z):
    z = np.exp(z - z.max(axis=-1, keepdims=True))
    return z / z.sum(axis=-1, keepdims=True)

  expected = softmax(logits / 3).mean(axis=1)
  np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
  first, second = softmax(logits).swapaxes(0, 1)
  np.testing.assert_allclose(found["confidence"], agreement(first, second), atol=1e-5)
