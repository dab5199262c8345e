"""Peak memory of the DUDCH student at NUS-WIDE's size, on made features.

  python benchmarks/dudch_memory.py

A subprocess does the work, so that the peak is its own; what Python, JAX and the data take before
the student begins is printed apart.
"""

import argparse
import time

import machine


def work(arguments):
  """Runs the student's stage on made factors and returns what it took."""
  import jax
  import numpy as np

  from udh_jax.configuration import select
  from udh_jax.data.protocol import Splits
  from udh_jax.data.types import Dataset
  from udh_jax.methods import dudch
  from udh_jax.runtime import mesh as mesh_lib
  from udh_jax.runtime.stage import Context
  from udh_jax.sharding import split_rows
  from udh_jax.stages import student

  rng = np.random.default_rng(0)
  rows, bits = arguments.rows, arguments.bits
  everything = np.arange(rows)
  dataset = Dataset(
    name="made",
    images=rng.standard_normal((rows, arguments.image_width), dtype=np.float32),
    image_shape=(arguments.image_width,),
    labels=None,
    names=[""] * rows,
    class_names=[],
    splits=Splits(everything, everything, everything[:0]),
    protocol="made",
    digest="",
    texts=rng.random((rows, arguments.text_width), dtype=np.float32) < 0.01,
  )
  mesh = mesh_lib.make_mesh()
  factors = {}
  for side in ("images", "texts"):
    factor = rng.standard_normal((rows, bits), dtype=np.float32)
    factor /= np.linalg.norm(factor, axis=1, keepdims=True)
    factors[side] = split_rows(mesh, factor)
  del factor
  config = dudch.default_config("nus_wide")
  config.bits = bits
  config.student.rounds = arguments.rounds
  before, start = machine.peak_memory(), time.perf_counter()
  work = student.student(
    Context(mesh, dataset), select(config, student.STAGE.fields), {"similarity": factors}
  )
  state = work.state
  for batch in work.batches(0):
    state, metrics = work.step(state, batch)
  out = jax.block_until_ready(work.finish(state))
  return {
    "seconds": time.perf_counter() - start,
    "before": before,
    "peak": machine.peak_memory(),
    "objective": float(metrics["objective_of_codes"]),
    "rows": len(out["learned_codes"]),
  }


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--rows", type=int, default=186_577)
  parser.add_argument("--bits", type=int, default=64)
  parser.add_argument("--image_width", type=int, default=512)
  parser.add_argument("--text_width", type=int, default=1000)
  parser.add_argument("--rounds", type=int, default=2)
  arguments = machine.parsed(parser, work)
  report = machine.run_again()
  print(machine.describe())
  print(
    f"{arguments.rows:,} pairs, {arguments.bits} bits, images {arguments.image_width} wide, "
    f"{arguments.text_width} tags, {arguments.rounds} rounds\n"
  )
  whole = arguments.rows**2 * 4 / 2**30
  print("| peak, GiB | before the student, GiB | the similarity whole, GiB | s |")
  print("|---|---|---|---|")
  print(
    f"| {report['peak']:.2f} | {report['before']:.2f} | {whole:.0f} | {report['seconds']:.0f} |"
  )


if __name__ == "__main__":
  main()
