"""Made pictures and features that stages of PSCH and SSDH are run on."""

import jax
import numpy as np
import pytest
from by_hand import (
  config_of,
)

from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.sharding import split_rows
from udh_jax.stages import pseudo_labels


@pytest.fixture(scope="module")
def context():
  """100 pictures without labels, on one device; rows 20 to 89 are for training."""
  rows = np.arange(100)
  dataset = Dataset(
    name="made",
    images=np.random.default_rng(1).integers(0, 256, (100, 8, 8, 3), dtype=np.uint8),
    image_shape=(8, 8, 3),
    labels=None,
    names=[str(row) for row in rows],
    class_names=[],
    splits=Splits(train=rows[20:90], database=rows[10:], query=rows[:10]),
    protocol="made",
    digest="",
  )
  mesh = mesh_lib.make_mesh(jax.devices()[:1])
  return Context(mesh, dataset)


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
