"""Codes for one's own pictures: udh-jax encode --workdir RUN --images FOLDER --output FILE.

Encodes every picture in a folder and the folders in it and writes an index, which ``udh-jax
search`` reads. Stopped and started again with the same arguments, it goes on where it last saved.
"""

import argparse
from collections.abc import Sequence

from udh_jax.commands.ending import guarded
from udh_jax.encoders.folder import encode_folder
from udh_jax.encoders.loading import find_encoder, load_encoder
from udh_jax.errors import require


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  parser = argparse.ArgumentParser("udh-jax encode", description=__doc__)
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument("--workdir", help="a run that train.py has finished")
  where.add_argument("--encoder", help="an encoder's folder, or hf-hub:owner/name")
  parser.add_argument("--bits", type=int, help="which of the run's encoders")
  parser.add_argument("--images", required=True, help="folder of pictures")
  parser.add_argument("--output", required=True, help="index file to write")
  parser.add_argument("--batch-size", type=int, default=64)
  options = parser.parse_args(arguments)

  def run():
    require(options.batch_size >= 1, f"--batch-size is {options.batch_size}; give 1 or more.")
    source = options.encoder or str(find_encoder(options.workdir, options.bits).resolve())
    encoder = load_encoder(source)
    encode_folder(
      encoder, options.images, options.output, source=source, batch_size=options.batch_size
    )

  guarded(run)
