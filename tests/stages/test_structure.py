"""The spread of distances of made features against plain NumPy."""

import numpy as np
from by_hand import config_of, structure_of

from udh_jax.data.protocol import PAIRS, permutation


def test_the_structure_is_that_of_a_sample_of_the_training_images(context, features):
  found = structure_of(context, features, config_of("ssdh"))
  sample = features[20:90][permutation(70, 0, PAIRS)[:50]].astype(np.float64)
  sample /= np.linalg.norm(sample, axis=1, keepdims=True)
  distances = (1 - sample @ sample.T)[~np.eye(50, dtype=bool)]
  counts, edges = np.histogram(distances, bins=200, range=(0, 2))
  mode = edges[counts.argmax()] + 0.005
  np.testing.assert_allclose(found["mode"], mode, rtol=1e-5)
  left = np.sqrt(((distances[distances <= mode] - mode) ** 2).mean())
  np.testing.assert_allclose(found["left_deviation"], left, rtol=1e-3)
