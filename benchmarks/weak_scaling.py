"""Weak scaling by work: what each of 1, 2, 4, 8 devices has to do when rows grow with devices.

    python benchmarks/weak_scaling.py

Devices are simulated on one CPU, so that time would say nothing; counted is what XLA says of the
program that each device runs (a loop's body counts once): operations, bytes moved, and bytes that
go between devices. Constant columns mean that twice the devices do twice the rows.
"""

import argparse
import os
import re

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import jax.numpy as jnp
import machine
import optax
from jax.sharding import NamedSharding, PartitionSpec

from udh_jax import equal_size_kmeans
from udh_jax.clustering.members import clustering_specs
from udh_jax.models.registry import create_backbone
from udh_jax.stages.training import descend, initial_state

AXIS = "data"
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "bf16": 2, "u8": 1, "s64": 8, "f64": 8}
COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
COLLECTIVE = re.compile(rf"= (\(?[^=]*?) (?:{COLLECTIVES})(?:-start)?\(")


def between_devices(program: str) -> int:
  """Bytes of the results of all collective operations in a compiled program."""
  total = 0
  for shapes in COLLECTIVE.findall(program):
    for kind, sizes in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
      count = 1
      for size in filter(None, sizes.split(",")):
        count *= int(size)
      total += BYTES[kind] * count
  return total


def clustering(mesh, options):
  """The program that clusters ``options.rows`` rows a device, and its arguments' shapes."""
  rows, whole = PartitionSpec(AXIS), PartitionSpec()
  mapped = jax.shard_map(
    lambda features: equal_size_kmeans(
      features, options.clusters, key=jax.random.key(0), axis_name=AXIS
    ),
    mesh=mesh,
    in_specs=rows,
    out_specs=clustering_specs(rows, whole),
  )
  count = options.rows * mesh.size
  features = jax.ShapeDtypeStruct(
    (count, options.dim), jnp.float32, sharding=NamedSharding(mesh, rows)
  )
  return jax.jit(mapped), (features,)


def training(mesh, options):
  """A step of MobileNetV2 on ``options.batch`` images a device, and its arguments' shapes."""
  rows = NamedSharding(mesh, PartitionSpec(AXIS))
  whole = NamedSharding(mesh, PartitionSpec())
  module = create_backbone("mobilenetv2_100")
  count, side = options.batch * mesh.size, options.side
  images = jax.ShapeDtypeStruct((count, side, side, 3), jnp.float32, sharding=rows)
  index = jax.ShapeDtypeStruct((count,), jnp.int32, sharding=rows)
  variables = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))

  def loss(parameters, constants, batch, key):
    del key
    features = module.apply({**constants, "params": parameters}, batch["image"])
    return jnp.mean(jnp.square(features)), {}

  optimizer = optax.adamw(1e-3)
  constants = {name: part for name, part in variables.items() if name != "params"}
  state = jax.eval_shape(
    lambda parameters: initial_state(parameters, optimizer, 0), variables["params"]
  )
  state, constants = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), (state, constants)
  )
  step = jax.jit(descend(loss, optimizer), donate_argnums=0, out_shardings=whole)
  return step, (state, constants, {"image": images, "index": index})


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, default=20_000, help="of features, a device")
  parser.add_argument("--dim", type=int, default=64)
  parser.add_argument("--clusters", type=int, default=100)
  parser.add_argument("--batch", type=int, default=16, help="images a device")
  parser.add_argument("--side", type=int, default=96)
  parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
  options = parser.parse_args()
  print(machine.describe())
  print(
    f"clustering: {options.rows:,} x {options.dim} a device, K = {options.clusters}; step: "
    f"MobileNetV2 at {options.side} pixels, {options.batch} images a device. Of each device:\n"
  )
  print("| what | devices | GFLOP | of one device's | GB moved | of one device's | MB between |")
  print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
  for name, make in (("equal-size k-means", clustering), ("training step", training)):
    base = None
    for count in options.devices:
      mesh = jax.make_mesh(
        (count,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:count]
      )
      program, shapes = make(mesh, options)
      program = program.lower(*shapes).compile()
      cost = program.cost_analysis()
      flops, moved = cost["flops"] / 1e9, cost["bytes accessed"] / 1e9
      base = base or (flops, moved)
      print(
        f"| {name} | {count} | {flops:.3f} | {flops / base[0]:.3f} | {moved:.3f} | "
        f"{moved / base[1]:.3f} | {between_devices(program.as_text()) / 1e6:.2f} |",
        flush=True,
      )


if __name__ == "__main__":
  main()
