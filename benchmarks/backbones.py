"""How fast each backbone reads pictures, beside MobileNetV2: python benchmarks/backbones.py.

Weights are random: they do not change the time. Both networks take turns on the same images.
"""

import argparse

import jax
import numpy as np
from machine import describe, paired

from udh_jax.models.registry import BACKBONES, create_backbone

BATCH, TURNS, SIDE, PEER = 8, 3, 224, "mobilenetv2_100"


def reader(name: str):
  """The forward pass of a network with random weights, compiled, and its parameters."""
  backbone = create_backbone(name)
  images = np.random.default_rng(0).random((BATCH, SIDE, SIDE, 3), dtype=np.float32)
  variables = jax.jit(backbone.init)(jax.random.key(0), images)
  forward = jax.jit(backbone.apply).lower(variables, images).compile()
  count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
  return lambda: forward(variables, images).block_until_ready(), count


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  names = sorted(BACKBONES.keys() - {"small_convnet"})
  parser.add_argument("--names", nargs="*", default=names, choices=names)
  names = parser.parse_args().names
  print(describe(f"{SIDE} pixels a side, batches of {BATCH}"))
  print("\n| backbone | parameters | images/s | time, of MobileNetV2's (quartiles) |")
  print("| --- | ---: | ---: | ---: |")
  peer, _ = reader(PEER)
  for name in names:
    own, count = reader(name)
    times = paired({"own": own, "peer": peer}, TURNS)
    rate, ratio = BATCH / np.median(times["own"].runs), times["own"].ratio_to(times["peer"])
    print(f"| `{name}` | {count / 1e6:.1f} M | {rate:.1f} | {ratio} |", flush=True)


if __name__ == "__main__":
  main()
