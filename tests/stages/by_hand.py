"""A small data set, its teacher, and stages that are run by hand."""

import jax
import numpy as np

from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.methods import bihalf as bihalf_method
from udh_jax.methods import defaults, psch
from udh_jax.methods import ssdh as ssdh_method
from udh_jax.models.registry import create_backbone
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.sharding import split_rows
from udh_jax.stages import parts as parts_stage
from udh_jax.stages import structure
from udh_jax.stages.network import new_network

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


PLAIN = defaults.augmentation(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False, color=0.0)


def context_of(devices, *, size, train, first=0):
  """Made pictures without labels on so many devices; those before ``first`` are queries."""
  rows = np.arange(size)
  dataset = Dataset(
    name="made",
    images=np.random.default_rng(1).integers(0, 256, (size, 8, 8, 3), dtype=np.uint8),
    image_shape=(8, 8, 3),
    labels=None,
    names=[str(row) for row in rows],
    class_names=[],
    splits=Splits(train=train, database=rows[first:], query=rows[:first]),
    protocol="made",
    digest="",
  )
  return Context(mesh_lib.make_mesh(jax.devices()[:devices]), dataset)


def teacher_of(context):
  about = {
    "backbone": "small_convnet",
    "padding": "symmetric",
    "mean": MEAN,
    "std": STD,
    "labels_used": "none",
    "source": "random",
    "sha256": "",
  }
  return new_network(context, create_backbone("small_convnet"), about, (1, 8, 8, 3), seed=0).stored


def config_of(method, **sections):
  methods = {"psch": psch, "ssdh": ssdh_method, "bihalf": bihalf_method}
  config = methods[method].default_config("digits")
  config.bits, config.student.image_size, config.features.image_sizes = 12, 8, (8,)
  config.teacher.backbone = "small_convnet"
  if "structure" in config:
    config.structure.num_images = 50
  if method == "psch":
    config.cluster.update(num_clusters=4, num_clusterings=2)
  config[method].update(steps=1, batch_size=12, augment=PLAIN, hash_start="random")
  for section, values in sections.items():
    config[section].update(values)
  return config


def structure_of(context, features, config):
  placed = {"features": split_rows(context.mesh, features)}
  work = structure.structure(context, select(config, structure.STAGE.fields), {"features": placed})
  return work.finish(work.state)


def finished(work):
  """Outputs of a stage, run to its end."""
  state = work.state
  for batch in work.batches(0) if work.batches else ():
    state, _ = work.step(state, batch)
  return work.finish(state)


def parts_of(context, teacher, config):
  own, size = select(config, parts_stage.STAGE.fields), config.features.image_sizes[0]
  return finished(parts_stage.parts(context, own, {"teacher": teacher}, image_size=size))


def first_step(context, stage, config, inputs):
  """Rows and metrics of the first step, and the start parameters."""
  work = stage.build(context, select(config, stage.fields), inputs)
  batch = next(work.batches(0))
  rows = np.asarray(batch["index"])
  start = jax.tree.map(np.asarray, work.state["parameters"])
  _, metrics = work.step(work.state, batch)
  return rows[rows >= 0], {name: float(value) for name, value in metrics.items()}, start


def plain_views(context, rows):
  return (context.dataset.images[rows] / np.float32(255) - np.float32(MEAN)) / np.float32(STD)


def expected_pairs(context, rows, start, targets, known):
  """The pair term from the start parameters, pair by pair."""
  backbone = create_backbone("small_convnet")
  hidden = np.asarray(backbone.apply({"params": start["backbone"]}, plain_views(context, rows)))
  codes = np.tanh(hidden @ start["hash"]["kernel"] + start["hash"]["bias"])
  return (known * (codes @ codes.T / 12 - targets) ** 2).mean()
