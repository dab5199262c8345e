"""Places in the graph of neighbours, as a stage."""

import jax
import numpy as np
import pytest
from by_hand import context_of

from udh_jax.clustering.neighbours import nearest_neighbours, neighbour_embedding
from udh_jax.methods import automatic, psch, udh_ecc
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


def test_of_several_rounds_the_mean_of_the_cosines_decides(rng):
  config = udh_ecc.default_config("folder")
  config.cluster.update(neighbours=7, dims=4)
  context = context_of(8, size=ROWS, train=np.arange(ROWS))
  rounds = [rng.standard_normal((ROWS, width)).astype(np.float32) for width in (12, 5, 30)]
  rounds = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rounds]
  placed = [{"features": split_rows(context.mesh, rows)} for rows in rounds]
  inputs = dict(zip(("features", "round_1", "round_2"), placed, strict=True))
  found = embedding.STAGE.build(context, config, inputs).finish({})["features"]
  found = mesh_lib.to_host(found, ROWS)
  cosines = sum(rows @ rows.T for rows in rounds) / 3
  factor = np.linalg.cholesky(cosines + 1e-6 * np.eye(ROWS)).astype(np.float32)
  neighbours = nearest_neighbours(factor, 7)  # rows with just these products
  expected = np.asarray(neighbour_embedding(neighbours, 4, key=jax.random.key(config.seed)))
  np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=0.01)


@pytest.mark.parametrize("method", [psch, udh_ecc])
def test_clusters_are_looked_for_where_the_field_says(method):
  config = automatic.provisional(method.default_config("cifar10"))
  sources = {stage.name: stage.inputs for stage in make_plan(config).stages}
  assert sources["cluster_1"] == {"features": "features_1"} and "embedding_1" not in sources
  config.cluster.space = "neighbours"
  sources = {stage.name: stage.inputs for stage in make_plan(config).stages}
  assert sources["embedding_1"] == {"features": "features_1"}
  assert sources["cluster_1"] == {"features": "embedding_1"}
  config.rounds = 3
  sources = {stage.name: stage.inputs for stage in make_plan(config).stages}
  before = {"round_1": "features_1", "round_2": "features_2"}
  assert sources["embedding_3"] == {"features": "features_3", **before}
