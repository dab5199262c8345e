"""How long an index takes to follow a folder of many files: python benchmarks/update_index.py.

Makes a folder of hard links to a few pictures and an index that knows them all (codes are random:
no picture is encoded for it), and then times `udh-jax encode --update` without a change, with one
new picture in 10,000, and opening the index. Needs a file system that takes the links (tmpfs does).
"""

import argparse
import os
import pathlib
import shutil
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from machine import describe
from PIL import Image

from udh_jax.data.pictures import list_pictures
from udh_jax.encoders import folder as encoders_folder
from udh_jax.encoders.image import Encoder
from udh_jax.models.registry import create_backbone
from udh_jax.retrieval import HammingIndex

ABOUT = {
  "backbone": "small_convnet",
  "padding": "symmetric",
  "dtype": "float32",
  "image_size": 32,
  "mean": [0.5, 0.5, 0.5],
  "std": [0.25, 0.25, 0.25],
  "bits": 64,
  "picture_size": 36,
  "labels_used": "none",
  "method": "benchmark",
  "scores": {},
}


def make_encoder():
  module = create_backbone("small_convnet", padding="symmetric")
  backbone = module.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  features = module.apply(backbone, jnp.zeros((1, 32, 32, 3)))
  kernel = jax.random.normal(jax.random.key(1), (features.shape[1], 64))
  return Encoder({"backbone": backbone, "hash": {"kernel": kernel, "bias": jnp.zeros(64)}}, ABOUT)


def make_pictures(folder, count, rng):
  for i in range(count):
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    small.resize((640, 480), Image.BICUBIC).save(folder / f"{i}.jpg")


def timed(words, call):
  start = time.perf_counter()
  result = call()
  print(f"| {words} | {time.perf_counter() - start:.2f} |", flush=True)
  return result


def main():
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--files", type=int, default=1_000_000)
  parser.add_argument("--folder", default="/dev/shm")
  options = parser.parse_args()
  rng = np.random.default_rng(0)
  root = pathlib.Path(tempfile.mkdtemp(dir=options.folder))
  try:
    sources, pictures = root / "sources", root / "pictures"
    sources.mkdir()
    make_pictures(sources, 100, rng)
    for i in range(options.files):
      if i % 1000 == 0:
        (pictures / f"{i // 1000:06d}").mkdir(parents=True)
      os.link(sources / f"{i % 100}.jpg", pictures / f"{i // 1000:06d}/{i:09d}.jpg")
    encoder = make_encoder()
    names = list_pictures(pictures)
    n = len(names)
    states = encoders_folder._states(pictures, names)
    columns = {
      name: np.zeros((n, *shape), dtype) for name, (dtype, shape) in encoders_folder.COLUMNS.items()
    }
    columns |= {"size": states[:, 0].astype(np.uint64), "mtime": states[:, 1]}
    columns["digest"] = rng.integers(0, 256, (n, 16), dtype=np.uint8)
    about = {
      "encoder": {"source": "", "digest": encoder.digest},
      "folder": str(pictures.resolve()),
    }
    output = root / "a.index"
    codes = rng.integers(0, 256, (n, 8), dtype=np.uint8)
    HammingIndex(codes, names, about=about, columns=columns).save(output)
    encoder(np.zeros((64, 36, 36, 3), np.uint8))  # compiled
    print(describe() + "\n")
    print(f"{n:,} files, index of {output.stat().st_size / 1e6:.0f} MB\n")
    print("| | s |\n| --- | ---: |")
    update = lambda: encoders_folder.encode_folder(encoder, pictures, output, update=True)  # noqa: E731
    timed("update without a change", update)
    few = max(1, n // 10_000)
    make_pictures(pictures / "000000", few, rng)
    size = output.stat().st_size
    timed(f"update with {few} new pictures", update)
    print(f"\nthe index grew by {output.stat().st_size - size:,} bytes\n")
    timed("opening the index", lambda: HammingIndex.load(output))
  finally:
    shutil.rmtree(root)


if __name__ == "__main__":
  main()
