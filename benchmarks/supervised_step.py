"""Training step of DHIH at several numbers of labelled images: its cost does not grow with them.

    python benchmarks/supervised_step.py

Made images of 32 x 32 with random labels, MobileNetV2 at 96 px with random weights, batch 64. A
step is timed with the reading of its batch. Steps take turns, so that a busy machine disturbs all
alike; the ratio is the median over the turns of a step's time over the first's of the same turn.
"""

import argparse
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import machine
import numpy as np

from udh_jax.configuration import select
from udh_jax.data.protocol import Splits
from udh_jax.data.types import Dataset
from udh_jax.methods import dhih
from udh_jax.models.registry import create_backbone
from udh_jax.models.weights import IMAGENET_MEAN, IMAGENET_STD
from udh_jax.runtime import mesh as mesh_lib
from udh_jax.runtime.stage import Context
from udh_jax.stages import supervised
from udh_jax.stages.network import new_network


def made(size, classes):
  rng = np.random.default_rng(0)
  rows = np.arange(size)
  return Dataset(
    name="made",
    images=rng.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8),
    image_shape=(32, 32, 3),
    labels=(rows % classes).astype(np.int32),
    names=[],
    class_names=[str(number) for number in range(classes)],
    splits=Splits(rows, rows, rows[:0]),
    protocol=f"made, {size} images",
    digest="",
  )


def steps_of(size, options):
  """A generator that makes one training step each time it is asked."""
  config = dhih.default_config("cifar10")
  config.student.image_size = options.size
  config.supervised.update(steps=options.steps + 3, batch_size=options.batch)
  context = Context(mesh_lib.make_mesh(), made(size, 10))
  backbone = create_backbone("mobilenetv2_100")
  about = {
    "backbone": "mobilenetv2_100",
    "padding": "symmetric",
    "mean": IMAGENET_MEAN,
    "std": IMAGENET_STD,
    "labels_used": "none",
    "source": "random",
    "sha256": "",
  }
  teacher = new_network(context, backbone, about, (1, options.size, options.size, 3), seed=0)
  work = supervised.supervised(
    context, select(config, supervised.STAGE.fields), {"teacher": teacher.stored}
  )
  state = work.state
  for batch in work.batches(0):
    state, _ = work.step(state, batch)
    jax.block_until_ready(state)
    yield


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--images", type=int, nargs="+", default=[5_000, 50_000])
  parser.add_argument("--size", type=int, default=96)
  parser.add_argument("--batch", type=int, default=64)
  parser.add_argument("--steps", type=int, default=100)
  options = parser.parse_args()
  running = {size: steps_of(size, options) for size in options.images}
  for steps in running.values():
    for _ in range(3):  # compiles, and warms up
      next(steps)
  seconds = {size: [] for size in running}
  for turn in range(options.steps):
    order = options.images if turn % 2 else options.images[::-1]
    for size in order:
      start = time.perf_counter()
      next(running[size])
      seconds[size].append(time.perf_counter() - start)
  print(
    f"{machine.describe()}\nDHIH, {options.size} px, batch {options.batch}, {options.steps} steps\n"
  )
  print("| labelled images | s a step | fastest | of the first |\n|---|---|---|---|")
  first = np.array(seconds[options.images[0]])
  for size, values in seconds.items():
    ratio = np.median(np.array(values) / first)
    print(f"| {size:,} | {np.median(values):.3f} | {min(values):.3f} | {ratio:.3f} |")


if __name__ == "__main__":
  main()
