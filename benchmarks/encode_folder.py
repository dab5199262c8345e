"""Images a second from a folder of pictures to codes, and what of it is decoding.

python benchmarks/encode_folder.py --encoder runs/mine/encoder_32bits --images PICTURES
"""

import argparse
import pathlib
import time

import jax
import machine
import numpy as np

from udh_jax import load_encoder
from udh_jax.data.pictures import list_pictures
from udh_jax.encoders.folder import Changes, look_ahead
from udh_jax.retrieval.index import Names


def main():
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--encoder", required=True)
  parser.add_argument("--images", required=True)
  parser.add_argument("--batch-size", type=int, default=64)
  parser.add_argument("--picture-size", type=int, help="side to decode to; the encoder's own")
  options = parser.parse_args()
  encoder = load_encoder(options.encoder)
  folder, batch_size = pathlib.Path(options.images), options.batch_size
  files = list_pictures(folder)
  files = files[: len(files) // batch_size * batch_size]
  size = options.picture_size or encoder.about["picture_size"]
  pictures = np.zeros((batch_size, size, size, 3), np.uint8)
  encoder(pictures)  # compiled from here on

  def rate(run):
    start = time.perf_counter()
    run()
    return len(files) / (time.perf_counter() - start)

  def read():
    new = np.full(len(files), -1)
    changes = Changes(Names.of(files), new, new >= 0, new[:0])
    return look_ahead(folder, changes, np.arange(len(files)), {}, size, batch_size)

  def decode():
    for _ in read():
      pass

  def network():
    for _ in range(len(files) // batch_size):
      encoder(pictures)

  def both():
    for found in read():
      batch = np.stack([one.picture for one in found if one.picture is not None])
      encoder(np.pad(batch, ((0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0))))

  decode()  # the files are in memory from here on
  print(machine.describe(jax.devices()[0]))
  print(f"{len(files)} pictures decoded to {size} x {size}, batches of {batch_size}\n")
  print("| | images/s |")
  print("| --- | ---: |")
  for name, run in (("decoding alone", decode), ("network alone", network), ("both", both)):
    print(f"| {name} | {rate(run):.0f} |", flush=True)


if __name__ == "__main__":
  main()
