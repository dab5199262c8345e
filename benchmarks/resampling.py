"""Crops by JAX's own resampling and by ours, side by side: python benchmarks/resampling.py.

`udh_jax.data.augmentation` takes the first where a view has fewer pixels than its picture, the
second elsewhere.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from machine import describe

from udh_jax.data import augmentation

BATCH, TURNS = 64, 11
SIZES = ((256, 96), (256, 160), (64, 64), (32, 96), (32, 128), (8, 8))


@functools.partial(jax.jit, static_argnames="size")
def ours(images, rows, columns, size):
  rows = augmentation._weights(rows, images.shape[1], size, None)
  columns = augmentation._weights(columns, images.shape[2], size, None)
  return augmentation._resample(images, rows, columns)


@functools.partial(jax.jit, static_argnames="size")
def jaxs(images, rows, columns, size):
  return augmentation._reduce(images, rows, columns, None, size)


def main():
  print(describe())
  print("\n| pixels | ours / JAX's, median (least to greatest) | largest difference |")
  print("| --- | ---: | ---: |")
  rng = np.random.default_rng(0)
  for source, size in SIZES:
    images = jnp.asarray(rng.random((BATCH, source, source, 3), dtype=np.float32))
    sides = rng.uniform(0.6, 1, (2, BATCH)) * source
    starts = rng.random((2, BATCH)) * (source - sides)
    rows, columns = (
      tuple(jnp.asarray(values[axis], jnp.float32) for values in (starts, sides)) for axis in (0, 1)
    )
    apart = float(
      jnp.abs(ours(images, rows, columns, size) - jaxs(images, rows, columns, size)).max()
    )
    ratios = []
    for _ in range(TURNS):
      times = []
      for function in (ours, jaxs):
        begun = time.perf_counter()
        function(images, rows, columns, size).block_until_ready()
        times.append(time.perf_counter() - begun)
      ratios.append(times[0] / times[1])
    middle = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    print(f"| {source} to {size} | {middle} | {apart:.1e} |", flush=True)


if __name__ == "__main__":
  main()
