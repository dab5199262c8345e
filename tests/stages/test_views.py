"""Features of views, and what is clustered of them."""

import numpy as np
import pytest
from by_hand import PLAIN, context_of, finished, plain_views, teacher_of

from udh_jax.configuration import select
from udh_jax.errors import InputError
from udh_jax.methods import udh_ecc
from udh_jax.models.registry import create_backbone
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.sharding import split_rows
from udh_jax.stages import partitions, views


def test_the_whole_picture_comes_first_and_no_two_views_are_alike(context, rng):
  config, teacher = udh_ecc.default_config("folder"), teacher_of(context)
  config.features.batch_size = 30
  features = {
    "features": split_rows(context.mesh, rng.normal(size=(100, 128)).astype(np.float32)),
    "length": split_rows(context.mesh, np.full(100, 2, np.float32)),
    "centre": np.full(128, 0.5, np.float32),
  }

  def made(**augment):
    config.views = {"number": 3, "image_size": 8, "augment": PLAIN | augment}
    own = select(config, views.STAGE.fields)
    inputs = {"teacher": teacher, "features": features}
    return np.asarray(finished(views.views(context, own, inputs))["views"], np.float32)[:100]

  plain, coloured = made(), made(color=0.8)
  assert plain.shape == (100, 4, 128)
  np.testing.assert_allclose(plain[:, 0], 2 * np.asarray(features["features"]) + 0.5, atol=5e-3)
  images = plain_views(context, np.arange(100))
  expected = create_backbone("small_convnet").apply(teacher["variables"], images)
  for view in (1, 2, 3):
    np.testing.assert_allclose(plain[:, view], expected, atol=5e-3)
  for one, other in ((1, 2), (1, 3), (2, 3)):
    assert (abs(coloured[:, one] - coloured[:, other]).max(axis=1) > 0.01).all()


def test_features_beyond_float16_are_refused(context):
  config = udh_ecc.default_config("folder")
  config.views = {"number": 2, "image_size": 8, "augment": PLAIN}
  config.features.batch_size = 30
  features = {
    "features": split_rows(context.mesh, np.ones((100, 128), np.float32)),
    "length": split_rows(context.mesh, np.full(100, 70_000, np.float32)),
    "centre": np.zeros(128, np.float32),
  }
  inputs = {"teacher": teacher_of(context), "features": features}
  with pytest.raises(InputError, match=r"^Features of .* larger than float16 holds"):
    finished(views.views(context, select(config, views.STAGE.fields), inputs))


def test_codes_are_held_to_clusters_of_the_view_that_is_kept_apart(rng):
  size = 120
  context = context_of(1, size=size, train=np.arange(0, size, 2))
  ours, theirs = rng.integers(0, 5, (2, size))  # classes of the features, and of the kept view
  centres = 20 * rng.normal(size=(2, 5, 8))
  near = rng.normal(size=(2, size, 8))
  seen = np.repeat((centres[0][ours] + near[0])[:, None], 3, axis=1)
  seen[:, -1] = centres[1][theirs] + near[1]
  inputs = {
    "features": {"features": split_rows(context.mesh, seen[:, 0].astype(np.float32))},
    "views": {"views": split_rows(context.mesh, seen.astype(np.float16))},
  }
  config = udh_ecc.default_config("folder")
  found = partitions.STAGE.build(context, config, inputs).finish({})

  def agree(labels, classes):
    """How much likelier two of a cluster are of a class than any two."""
    together = labels[:, None] == labels
    return (classes[:, None] == classes)[together].mean() - 0.2

  kept = mesh_lib.to_host(found["held_to"]["2"], size)[:, 0]
  made = mesh_lib.to_host(found["made_from"]["2"], size)[::2, 0]
  assert agree(kept, theirs) > 0.6 > 0.4 > agree(kept, ours)
  assert agree(made, ours[::2]) > 0.6 > 0.4 > agree(made, theirs[::2])
