"""Made pictures and features that stages of PSCH and SSDH are run on."""

import numpy as np
import pytest
from by_hand import config_of, context_of

from udh_jax.configuration import select
from udh_jax.sharding import split_rows
from udh_jax.stages import pseudo_labels


@pytest.fixture(scope="module")
def context():
  """100 pictures without labels, on one device; rows 20 to 89 are for training."""
  return context_of(1, size=100, train=np.arange(20, 90), first=10)


@pytest.fixture(scope="module")
def features():
  rng = np.random.default_rng(2)
  centres = rng.normal(size=(4, 16)) * 3
  return (centres[rng.integers(0, 4, 100)] + rng.normal(size=(100, 16))).astype(np.float32)


@pytest.fixture(scope="module")
def clustered(context, features):
  config = config_of("psch")
  placed = {"features": split_rows(context.mesh, features)}
  work = pseudo_labels.pseudo_labels(
    context, select(config, pseudo_labels.STAGE.fields), {"features": placed}
  )
  return work.finish(work.state)
