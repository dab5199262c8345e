"""Codes for one's own pictures: udh-jax encode --encoder RUN --images FOLDER --output FILE.

Encodes every picture in a folder and the folders in it and writes an index, which ``udh-jax
search`` reads. Stopped and started again with the same arguments, it goes on where it last saved.
With ``--update`` it brings an index in step with its folder: new and changed pictures are encoded,
vanished ones go, the others are not read.
"""

import argparse
import os
from collections.abc import Sequence

from udh_jax.commands.ending import guarded
from udh_jax.encoders.folder import encode_folder
from udh_jax.encoders.loading import encoder_of, find_encoder, load_encoder
from udh_jax.errors import require
from udh_jax.retrieval.index import HammingIndex


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  parser = argparse.ArgumentParser("udh-jax encode", description=__doc__)
  where = parser.add_mutually_exclusive_group()
  where.add_argument("--workdir", help="a run that train.py has finished")
  where.add_argument("--encoder", help="an encoder's folder, a run's, or hf-hub:owner/name")
  parser.add_argument("--bits", type=int, help="length of the codes: which of the run's encoders")
  parser.add_argument("--images", help="folder of pictures")
  parser.add_argument("--output", required=True, help="index file to write")
  parser.add_argument(
    "--update", action="store_true", help="encode only what is new; encoder and folder are noted"
  )
  parser.add_argument(
    "--verify", action="store_true", help="with --update: compare contents, not sizes and times"
  )
  parser.add_argument("--batch-size", type=int, default=64)
  options = parser.parse_args(arguments)

  def run():
    require(options.update or not options.verify, "--verify is given without --update.")
    noted = _noted(options)
    if options.encoder or options.workdir:
      source = find_encoder(options.encoder or options.workdir, options.bits)
      encoder = load_encoder(source, options.bits)
    else:
      source, encoder = noted.about["encoder"]["source"], encoder_of(noted)
      require(
        options.bits in (None, encoder.about["bits"]),
        f"--bits is {options.bits}, but {options.output} has {noted.num_bits} bits.",
      )
    encode_folder(
      encoder,
      options.images or noted.about["folder"],
      options.output,
      source=source,
      batch_size=options.batch_size,
      update=options.update,
      verify=options.verify,
    )

  guarded(run)


def _noted(options) -> HammingIndex | None:
  """The index to update, where encoder or folder are to be those that it was made with."""
  has_encoder = bool(options.encoder or options.workdir)
  if has_encoder and options.images:
    return None
  missing = "--images" if has_encoder else "--encoder or --workdir"
  require(
    options.update and os.path.exists(options.output),
    f"give {missing}; only --update of an index that is there knows it.",
  )
  index = HammingIndex.load(options.output)
  require(
    index.encoder_digest and index.about.get("folder"),
    f"{options.output} does not say what it was made of; give --encoder and --images, without "
    "--update.",
  )
  return index
