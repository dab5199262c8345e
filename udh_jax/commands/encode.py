"""Codes for one's own pictures: udh-jax encode --encoder RUN --images FOLDER --output FILE.

Encodes every picture in a folder and the folders in it and writes an index, which ``udh-jax
search`` reads. Stopped and started again with the same arguments, it goes on where it last saved.
"""

import argparse
from collections.abc import Sequence

from udh_jax.commands.ending import guarded
from udh_jax.encoders.folder import encode_folder
from udh_jax.encoders.loading import find_encoder, load_encoder


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  parser = argparse.ArgumentParser("udh-jax encode", description=__doc__)
  where = parser.add_mutually_exclusive_group(required=True)
  where.add_argument("--workdir", help="a run that train.py has finished")
  where.add_argument("--encoder", help="an encoder's folder, a run's, or hf-hub:owner/name")
  parser.add_argument("--bits", type=int, help="length of the codes: which of the run's encoders")
  parser.add_argument("--images", required=True, help="folder of pictures")
  parser.add_argument("--output", required=True, help="index file to write")
  parser.add_argument("--batch-size", type=int, default=64)
  options = parser.parse_args(arguments)

  def run():
    source = find_encoder(options.encoder or options.workdir, options.bits)
    encoder = load_encoder(source, options.bits)
    encode_folder(
      encoder, options.images, options.output, source=source, batch_size=options.batch_size
    )

  guarded(run)
