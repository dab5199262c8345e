"""Hash networks before training."""

import numpy as np
import pytest
from by_hand import (
  config_of,
  finished,
  teacher_of,
)

from udh_jax.coding.binary import unpack_codes
from udh_jax.configuration import select
from udh_jax.errors import InputError
from udh_jax.sharding import split_rows
from udh_jax.stages import baselines
from udh_jax.stages.hash_network import linear_layer, pairwise_network


@pytest.mark.slow
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
  narrow = {"functions": {"lsh": fitted["functions"]["lsh"]}}
  with pytest.raises(InputError, match="There is no itq of 12 bits: the network has only 16 feat"):
    pairwise_network(context, config, inputs | {"baselines": narrow}, num_classes=0, start="itq")


def test_images_that_are_all_alike_get_finite_layers(context):
  features = {
    "features": split_rows(context.mesh, np.zeros((100, 16), np.float32)),
    "length": split_rows(context.mesh, np.zeros(100, np.float32)),
    "centre": np.ones(16, np.float32),
  }
  fitted = baselines.fit(context, "itq", features["features"], 12, 0)
  layer = linear_layer(context, features, fitted)
  assert np.isfinite(layer["kernel"]).all() and np.isfinite(layer["bias"]).all()


def test_outputs_have_a_spread_of_1_over_the_training_rows_alone(context, rng):
  rows = rng.normal(size=(100, 16)).astype(np.float32)
  train = context.dataset.splits.train
  rows[np.setdiff1d(np.arange(100), train)] *= 50
  length = np.linalg.norm(rows, axis=1)
  features = {
    "features": split_rows(context.mesh, rows / length[:, None]),
    "length": split_rows(context.mesh, length),
    "centre": rng.normal(size=16).astype(np.float32),
  }
  function = baselines.fit(context, "itq", rows, 12, 0)
  layer = linear_layer(context, features, function)
  raw = rows + features["centre"]  # as the network made them
  outputs = raw @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
  np.testing.assert_allclose((outputs[train] ** 2).mean(), 1, rtol=1e-3)
  expected = (rows - np.asarray(function.mean)) @ np.asarray(function.projection)
  clear = abs(expected) > 1e-3
  np.testing.assert_array_equal(np.sign(outputs)[clear], np.sign(expected)[clear])
