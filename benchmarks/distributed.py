"""Weak scaling of encoding on a Ray cluster: as many pictures for each worker.

python benchmarks/distributed.py --workers 1 2 --pictures 2000

Each worker is a node of one core of a local cluster (ray.cluster_utils).
"""

import argparse
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import machine
import numpy as np
import ray
from PIL import Image
from ray.cluster_utils import Cluster

from udh_jax import Encoder
from udh_jax.encoders.distributed import code_batches, encode_distributed
from udh_jax.models.registry import create_backbone

NODE = {"object_store_memory": 100 * 2**20}


def make_encoder(backbone, size):
  module = create_backbone(backbone, padding="symmetric")
  variables = module.init(jax.random.key(0), jnp.zeros((1, size, size, 3)))
  kernel = jax.random.normal(jax.random.key(1), (module.feature_dim, 64))
  about = {
    "backbone": backbone, "padding": "symmetric", "dtype": "float32", "image_size": size,
    "mean": [0.5] * 3, "std": [0.25] * 3, "bits": 64, "picture_size": size, "labels_used": "none",
    "method": "made", "scores": {},
  }  # fmt: skip
  return Encoder({"backbone": variables, "hash": {"kernel": kernel, "bias": jnp.zeros(64)}}, about)


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
  parser.add_argument("--pictures", type=int, default=2000, help="of each worker")
  parser.add_argument("--repeats", type=int, default=2)
  parser.add_argument("--backbone", default="mobilenetv2_100")
  parser.add_argument("--size", type=int, default=96)
  options = parser.parse_args()
  encoder = make_encoder(options.backbone, options.size)
  rng = np.random.default_rng(0)
  print(machine.describe(f"ray {ray.__version__}"))
  print(
    f"{options.pictures:,} pictures of 320 x 240 a worker, {options.backbone} at {options.size}\n"
  )
  with tempfile.TemporaryDirectory() as folder:
    pictures = pathlib.Path(folder, "pictures")
    pictures.mkdir()
    for i in range(options.pictures * max(options.workers)):
      small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
      Image.fromarray(small).resize((320, 240)).save(pictures / f"{i:06d}.jpg")
    names = sorted(path.name for path in pictures.iterdir())
    print("| workers | pictures | s | pictures/s | pictures/s a worker |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for _ in range(options.repeats):
      for workers in options.workers:
        listing = pathlib.Path(folder, f"{workers}.txt")
        listing.write_text("".join(f"{n}\n" for n in names[: workers * options.pictures]))
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
        for _ in range(workers):
          cluster.add_node(num_cpus=1, **NODE)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        with tempfile.TemporaryDirectory() as output:
          done = encode_distributed(
            encoder, str(listing), output, root=str(pictures), part_size=100, workers=workers
          )
          assert sum(len(rows.names) for rows in code_batches(output)) == done.pictures
        rate = done.encoded / done.seconds
        print(
          f"| {workers} | {done.pictures:,} | {done.seconds:.1f} | {rate:.0f} | "
          f"{rate / workers:.0f} |",
          flush=True,
        )
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
  main()
