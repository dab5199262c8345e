"""Arrays of a trace, and arrays split over a mesh, where functions do not take them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import udh_jax
from udh_jax.clustering.kmeans import kmeans
from udh_jax.clustering.neighbours import nearest_neighbours
from udh_jax.coding.baselines import itq
from udh_jax.errors import InputError
from udh_jax.retrieval import radius_search

KEY = jax.random.key(0)
CODES = np.random.default_rng(0).integers(0, 256, (16, 2), dtype=np.uint8)
ROWS = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
LABELS = np.arange(16) % 3
INDEX = udh_jax.HammingIndex(CODES, [str(row) for row in range(16)])


@pytest.mark.parametrize(
  "run",
  [
    lambda x: radius_search(x, CODES, 2),
    lambda x: udh_jax.mean_average_precision(x, CODES, LABELS, LABELS),
    lambda x: INDEX.search(x, 2),
    lambda x: INDEX.radius_search(x, 2),
  ],
)
def test_what_computes_on_the_host_says_so_under_jit(run):
  run(CODES)
  with pytest.raises(InputError, match="computes on the host and got an array of a trace"):
    jax.jit(run)(CODES)


@pytest.mark.parametrize(
  ("array", "run"),
  [
    (CODES, lambda x: udh_jax.search(CODES, x, 2)),
    (CODES, lambda x: radius_search(CODES, x, 2)),
    (ROWS, lambda x: itq(x, 2, key=KEY)),
    (ROWS, lambda x: kmeans(x, 2, key=KEY)),
    (ROWS, lambda x: udh_jax.equal_size_kmeans(x, 2, key=KEY)),
    (ROWS, lambda x: nearest_neighbours(x, 2)),
  ],
)
def test_rows_split_over_explicit_axes_are_refused_in_one_line(array, run):
  explicit = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
  with pytest.raises(InputError, match="axes of the type Explicit; make the mesh by"):
    run(jax.device_put(array, NamedSharding(explicit, PartitionSpec("data"))))
  auto = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  split = run(jax.device_put(array, NamedSharding(auto, PartitionSpec("data"))))
  leaves = zip(jax.tree.leaves(split), jax.tree.leaves(run(jnp.asarray(array))), strict=True)
  for one, other in leaves:
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
