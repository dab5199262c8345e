"""Places in the graph of neighbours, as a stage."""

import jax
import numpy as np
import pytest
from by_hand import context_of

from udh_jax.clustering.neighbours import nearest_neighbours, neighbour_embedding
from udh_jax.methods import psch, udh_ecc
from udh_jax.methods.registry import make_plan
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.sharding import split_rows
from udh_jax.stages import embedding

ROWS = 60


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("train", [np.arange(0, ROWS, 3), np.arange(ROWS), np.arange(2)])
def test_training_images_are_placed_by_their_neighbours(rng, devices, train):
  config = udh_ecc.default_config("folder")
  config.cluster.update(neighbours=7, dims=4)
  features = rng.standard_normal((ROWS, 12)).astype(np.float32)
  context = context_of(devices, size=ROWS, train=train)
  inputs = {"features": {"features": split_rows(context.mesh, features)}}
  found = embedding.STAGE.build(context, config, inputs).finish({})["features"]
  found = mesh_lib.to_host(found, ROWS)
  neighbours = nearest_neighbours(features[train], min(7, len(train) - 1))
  expected = np.asarray(neighbour_embedding(neighbours, 4, key=jax.random.key(config.seed)))
  np.testing.assert_allclose(found[train] @ found[train].T, expected @ expected.T, atol=0.01)
  assert not found[np.setdiff1d(np.arange(ROWS), train)].any()


@pytest.mark.parametrize("method", [psch, udh_ecc])
def test_clusters_are_looked_for_where_the_field_says(method):
  config = method.default_config("cifar10")
  sources = {stage.name: stage.inputs for stage in make_plan(config).stages}
  assert sources["cluster_1"] == {"features": "features_1"} and "embedding_1" not in sources
  config.cluster.space = "neighbours"
  sources = {stage.name: stage.inputs for stage in make_plan(config).stages}
  assert sources["embedding_1"] == {"features": "features_1"}
  assert sources["cluster_1"] == {"features": "embedding_1"}
