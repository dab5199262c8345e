"""Pseudo labels of made features against plain NumPy."""

import numpy as np
import pytest
from by_hand import config_of

from udh_jax.configuration import select
from udh_jax.errors import InputError
from udh_jax.sharding import split_rows
from udh_jax.stages import pseudo_labels


def test_the_threshold_leaves_the_nearest_part_of_the_training_images(clustered, features):
  everyones = pseudo_labels.confident_labels(clustered)
  assert clustered["labels"].shape[1] == everyones.shape[1] == 2
  for h in range(2):
    labels = np.asarray(clustered["labels"])[:100, h]
    assert (labels[20:90] >= 0).all() and (np.r_[labels[:20], labels[90:]] == -1).all()
    centroids = np.stack([features[labels == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(clustered["centroids"][h], centroids, atol=1e-4)
    distances = np.linalg.norm(features[20:90] - centroids[labels[20:90]], axis=1)
    np.testing.assert_allclose(np.asarray(clustered["distances"])[20:90, h], distances, rtol=1e-4)
    near = np.sort(np.argsort(distances)[:56]) + 20  # 0.8 of 70
    confident = np.asarray(everyones)[:100, h]
    np.testing.assert_array_equal(np.flatnonzero(confident >= 0), near)
    np.testing.assert_array_equal(confident[near], labels[near])


def test_clusterings_start_elsewhere_and_the_first_is_the_one_alone(clustered, context, features):
  labels = np.asarray(clustered["labels"])
  assert (labels[:, 0] != labels[:, 1]).any()
  config = config_of("psch", cluster={"num_clusterings": 1})
  placed = {"features": split_rows(context.mesh, features)}
  work = pseudo_labels.pseudo_labels(
    context, select(config, pseudo_labels.STAGE.fields), {"features": placed}
  )
  np.testing.assert_array_equal(work.finish(work.state)["labels"], labels[:, :1])


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
