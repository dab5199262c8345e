"""Clusters within bounds, and how many images they are sure of."""

import jax
import numpy as np
import pytest

from udh_jax.configuration import select
from udh_jax.methods import udh_ecc
from udh_jax.sharding import split_rows
from udh_jax.stages import cluster
from udh_jax.stages.pseudo_labels import confident_labels


@pytest.mark.parametrize(("bounds", "quantile"), [((0, 0), 1.0), ((1, 18), 0.6)])
def test_sizes_are_kept_and_the_nearest_part_is_confident(context, features, bounds, quantile):
  config = udh_ecc.default_config("digits")
  config.cluster.update(num_clusters=4, num_clusterings=3, num_restarts=2)
  config.cluster.update(min_size=bounds[0], max_size=bounds[1], threshold_quantile=quantile)
  placed = {"features": split_rows(context.mesh, features)}
  work = cluster.cluster(context, select(config, cluster.STAGE.fields), {"features": placed})
  found = jax.tree.map(np.asarray, work.finish(work.state))
  least, most = bounds if any(bounds) else (17, 18)  # 70 images in 4 clusters
  confident = np.asarray(confident_labels(found))
  for h in range(3):
    labels = found["labels"][20:90, h]
    sizes = np.bincount(labels, minlength=4)
    assert len(sizes) == 4 and least <= sizes.min() and sizes.max() <= most
    own = np.linalg.norm(features[20:90] - found["centroids"][h][labels], axis=1)
    np.testing.assert_allclose(found["distances"][20:90, h], own, rtol=1e-4)
    sure = np.argsort(own)[: round(70 * quantile)]
    assert set(np.flatnonzero(confident[20:90, h] >= 0)) == set(sure)
  assert (confident[:20] == -1).all() and (confident[90:100] == -1).all()
