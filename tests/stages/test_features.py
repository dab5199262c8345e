import jax
import numpy as np
import pytest
from by_hand import config_of, context_of, finished, teacher_of
from jax.sharding import PartitionSpec as P

from udh_jax.configuration import select
from udh_jax.errors import InputError
from udh_jax.sharding import split_rows
from udh_jax.stages import features as features_stage
from udh_jax.stages.features import centre_and_normalise, centred_rows


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_feature_that_is_not_finite_is_refused(rng, value):
  several = context_of(8, size=100, train=np.arange(20, 90))
  features = rng.normal(size=(100, 5)).astype(np.float32)
  centred_rows(several, split_rows(several.mesh, features))
  features[95, 3] = value  # of an image that the mean is not of
  with pytest.raises(InputError, match=r"^The network's features are not finite.*its weights\.$"):
    centred_rows(several, split_rows(several.mesh, features))


def test_weights_whose_features_are_not_finite_are_refused(context):
  config, teacher = config_of("bihalf"), teacher_of(context)
  params = teacher["variables"]["params"]
  too_large = {"bias": params["norm_2b"]["bias"], "scale": params["norm_2b"]["scale"] * 3e38}
  assert np.isfinite(too_large["scale"]).all()
  work = features_stage.features(
    context,
    select(config, features_stage.STAGE.fields),
    {"teacher": teacher | {"variables": {"params": params | {"norm_2b": too_large}}}},
    image_size=8,
  )
  with pytest.raises(InputError, match="features are not finite"):
    finished(work)
