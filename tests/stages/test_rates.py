"""Which layers of each method learn at the rate of fresh layers, by what they start from."""

import jax
import numpy as np
import pytest

from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.methods import bihalf, cibhash, dhih, psch, ssdh, udh_ecc
from udh_jax.models.registry import create_backbone
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.sharding import split_rows
from udh_jax.stages import baselines, contrast, distill, finetune, supervised, teacher
from udh_jax.stages import bihalf as bihalf_stage
from udh_jax.stages import psch as psch_stage
from udh_jax.stages import ssdh as ssdh_stage
from udh_jax.stages.network import new_network

ROWS, BITS = 24, 8
ABOUT = {
  "backbone": "small_convnet",
  "padding": "symmetric",
  "mean": (0.5,) * 3,
  "std": (0.25,) * 3,
  "labels_used": "none",
  "source": "random",
  "sha256": "",
}


@pytest.fixture(scope="module")
def context():
  rows = np.arange(ROWS)
  dataset = Dataset(
    name="made",
    images=np.random.default_rng(1).integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8),
    image_shape=(8, 8, 3),
    labels=(rows % 3).astype(np.int32),
    names=[str(row) for row in rows],
    class_names=["a", "b", "c"],
    splits=Splits(train=rows, database=rows, query=rows[:2]),
    protocol="made",
    digest="",
  )
  return Context(mesh_lib.make_mesh(jax.devices()[:1]), dataset)


@pytest.fixture(scope="module")
def inputs(context):
  """Outputs of the stages before, by every role that a training has."""
  rng = np.random.default_rng(2)

  def rows(*shape):
    return split_rows(context.mesh, rng.random((ROWS, *shape)).astype(np.float32))

  features = {
    "features": rows(128),
    "length": rows() + 1,
    "centre": np.zeros(128, np.float32),
    "parts": rows(8, 16),
  }
  itq = baselines.fit(context, "itq", features["features"], BITS, 0)
  labels = split_rows(context.mesh, (np.arange(ROWS) % 4).astype(np.int32)[:, None])
  return {
    "teacher": new_network(
      context, create_backbone("small_convnet"), ABOUT, (1, 8, 8, 3), seed=0
    ).stored,
    "features": features,
    "baselines": {"functions": {"itq": itq._asdict()}},
    "clustering": {"labels": labels, "distances": rows(1), "threshold": np.float32([0.8])},
    "structure": {name: np.float32(0.5) for name in ("mode", "left_deviation", "right_deviation")},
    "soft_labels": features | {"probabilities": rows(1, 4), "confidence": rows()},
  }


def shortened(config, section, **values):
  config.bits = BITS
  config.teacher.update(backbone="small_convnet", image_size=8)
  config.student.image_size = 8
  if "cluster" in config:
    config.cluster.num_clusters = 4
  config[section].update(steps=2, batch_size=4, **values)
  return config


def udh_ecc_started(start):
  config = shortened(udh_ecc.default_config("digits"), "distill")
  config.student.update(backbone="small_convnet", start=start)
  return config


CASES = {
  "teacher of one's own": (
    teacher.CONTRASTIVE,
    lambda: shortened(cibhash.default_config("digits"), "pretrain"),
    {"backbone", "head"},
  ),
  "finetune": (
    finetune.STAGE.with_options(seed_offset=1),
    lambda: shortened(udh_ecc.default_config("digits"), "finetune"),
    {"head"},
  ),
  "udh_ecc from the teacher and ITQ": (
    distill.STAGE,
    lambda: udh_ecc_started("teacher"),
    {"head"},
  ),
  "udh_ecc from nothing": (
    distill.STAGE,
    lambda: udh_ecc_started("random"),
    {"backbone", "hash", "head"},
  ),
  "cibhash": (
    contrast.STAGE,
    lambda: shortened(cibhash.default_config("digits"), "contrast"),
    {"hash"},
  ),
  "bihalf from ITQ": (
    bihalf_stage.STAGE,
    lambda: shortened(bihalf.default_config("digits"), "bihalf"),
    set(),
  ),
  "bihalf from nothing": (
    bihalf_stage.STAGE,
    lambda: shortened(bihalf.default_config("digits"), "bihalf", hash_start="random"),
    {"hash"},
  ),
  "dhih": (
    supervised.STAGE,
    lambda: shortened(dhih.default_config("digits"), "supervised"),
    {"hash", "head"},
  ),
  "csq": (
    supervised.STAGE,
    lambda: shortened(dhih.default_config("digits", method="csq"), "supervised"),
    {"hash"},
  ),
  "ssdh from ITQ": (
    ssdh_stage.STAGE,
    lambda: shortened(ssdh.default_config("digits"), "ssdh"),
    set(),
  ),
  "ssdh from nothing": (
    ssdh_stage.STAGE,
    lambda: shortened(ssdh.default_config("digits"), "ssdh", hash_start="random"),
    {"hash"},
  ),
  "psch from ITQ": (
    psch_stage.STAGE,
    lambda: shortened(psch.default_config("digits"), "psch"),
    {"head"},
  ),
  "psch from nothing": (
    psch_stage.STAGE,
    lambda: shortened(psch.default_config("digits"), "psch", hash_start="random"),
    {"hash", "head"},
  ),
}


def learning_at(state, rate: str) -> set[str]:
  """Top-level parts whose moments the optimiser of a rate holds, in a training's first state."""
  (partition,) = (s for s in state["optimizer"] if hasattr(s, "inner_states"))
  paths = jax.tree_util.tree_flatten_with_path(partition.inner_states[rate])[0]
  keys = {getattr(key, "key", None) for path, _ in paths for key in path}
  return keys & state["parameters"].keys()


@pytest.mark.parametrize("name", CASES)
def test_layers_that_start_at_random_learn_at_the_rate_of_fresh_layers(name, context, inputs):
  stage, configuration, fresh = CASES[name]
  config = configuration()
  work = stage.build(context, select(config, stage.fields), inputs)
  assert learning_at(work.state, "fresh") == fresh
  assert learning_at(work.state, "given") == work.state["parameters"].keys() - fresh
