import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from udh_jax.stages.features import centre_and_normalise


def test_features_are_centred_on_the_weighted_rows_and_of_unit_length(mesh, rng):
  features = rng.normal(size=(16, 5)).astype(np.float32) + 100
  weights = np.r_[np.ones(9), np.zeros(7)].astype(np.float32)
  features[12] = features[:9].mean(axis=0)
  centred = features - features[:9].mean(axis=0)
  lengths = np.linalg.norm(centred, axis=1)
  expected = np.where(lengths[:, None] > 1e-3, centred / np.maximum(lengths, 1e-3)[:, None], 0)
  sharded = jax.shard_map(
    lambda x, w: centre_and_normalise(x, w, axis_name="data"),
    mesh=mesh,
    in_specs=(P("data"), P("data")),
    out_specs=(P("data"), P("data"), P()),
  )
  for scaled, found, centre in (
    centre_and_normalise(features, weights),
    sharded(features, weights),
  ):
    np.testing.assert_allclose(np.delete(scaled, 12, 0), np.delete(expected, 12, 0), atol=1e-4)
    np.testing.assert_allclose(centre, features[:9].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found, lengths, atol=1e-4)
