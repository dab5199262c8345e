"""SSDH's training against its loss written out."""

import numpy as np
from by_hand import (
  config_of,
  expected_pairs,
  first_step,
  structure_of,
  teacher_of,
)

from udh_jax.sharding import split_rows
from udh_jax.stages import ssdh


def test_ssdh_trains_on_the_signs_of_its_structure(context, features):
  config = config_of("ssdh", structure={"deviations": 0.5})
  inputs = {
    "teacher": teacher_of(context),
    "features": {"features": split_rows(context.mesh, features)},
    "structure": structure_of(context, features, config),
  }
  rows, metrics, start = first_step(context, ssdh.STAGE, config, inputs)
  unit = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
  distances = 1 - unit @ unit.T
  fitted = {name: float(value) for name, value in inputs["structure"].items()}
  signs = 1.0 * (distances < fitted["mode"] - 0.5 * fitted["left_deviation"])
  signs -= distances > fitted["mode"] + 0.5 * fitted["right_deviation"]
  assert set(np.unique(signs)) == {-1, 0, 1}
  expected = expected_pairs(context, rows, start, signs, abs(signs))
  np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-3)
