"""Part vectors beside the features."""

import numpy as np
from by_hand import config_of, finished, parts_of, teacher_of

from udh_jax.configuration import select
from udh_jax.stages import features as features_stage


def test_parts_come_with_the_features_of_the_same_reading(context):
  config, teacher = config_of("psch"), teacher_of(context)
  size = config.features.image_sizes[0]
  alone = features_stage.features(
    context, select(config, features_stage.STAGE.fields), {"teacher": teacher}, image_size=size
  )
  expected, found = finished(alone), parts_of(context, teacher, config)
  assert found.keys() == {*expected, "parts"}
  for name, values in expected.items():
    np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-6)
