"""Codes for your own pictures: udh-jax encode --encoder RUN --images FOLDER --output FILE.

Encodes every picture in a folder and the folders in it and writes an index, which ``udh-jax
search`` reads. Stopped and started again with the same arguments, it goes on where it last saved.
With ``--update`` it brings an index in step with its folder: new and changed pictures are encoded,
vanished ones go, the others are not read.

With ``--store`` the codes go to a database in place of a file: new and changed pictures are
encoded, with ``--update`` vanished ones go. With ``--ray`` the pictures of a folder or listing are
encoded on all machines of a Ray cluster, and ``--output`` is a folder that all of them reach.
"""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Sequence

from udh_jax.commands.ending import guarded
from udh_jax.commands.store_flags import about_of, add_store_flags, finish, table_of
from udh_jax.encoders.distributed.cluster import encode_distributed
from udh_jax.encoders.distributed.listing import read_plan
from udh_jax.encoders.distributed.parts import parts_to_store
from udh_jax.encoders.folder import encode_folder, list_unreadable, unreadable_list
from udh_jax.encoders.loading import encoder_of, find_encoder, load_encoder
from udh_jax.encoders.store import encode_folder_to_store
from udh_jax.errors import InputError, require
from udh_jax.files import require_writable
from udh_jax.machine import keep_compiled
from udh_jax.retrieval.index import HammingIndex
from udh_jax.stores import Store, create_store
from udh_jax.stores.interface import FILE_COLUMNS


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  options = _parser().parse_args(arguments)
  guarded(lambda: _encode(options))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser("udh-jax encode", description=__doc__)
  where = parser.add_mutually_exclusive_group()
  where.add_argument("--workdir", help="work directory of a finished run of train.py")
  where.add_argument(
    "--encoder", help="folder of an encoder or of a finished run, or hf-hub:owner/name"
  )
  parser.add_argument(
    "--bits", type=int, help="length of the codes, where a run has encoders of several"
  )
  parser.add_argument("--images", help="folder of pictures; with --ray also a listing of them")
  parser.add_argument("--output", help="index file to write; with --ray a folder")
  add_store_flags(parser)
  parser.add_argument(
    "--approximate",
    action="store_true",
    help="with --store: build or refresh its approximate index afterwards",
  )
  parser.add_argument(
    "--update",
    action="store_true",
    help="bring an index in step with its folder, both noted in it; with --store: also remove"
    " what is no longer in the folder",
  )
  parser.add_argument(
    "--verify", action="store_true", help="with --update: compare contents, not sizes and times"
  )
  parser.add_argument("--batch-size", type=int, default=64, help="pictures encoded at once (64)")
  cluster = parser.add_argument_group("encoding on several machines (docs/stores.md)")
  cluster.add_argument("--ray", action="store_true", help="encode on a Ray cluster")
  cluster.add_argument("--root", help="folder or URL that relative paths of a listing start from")
  cluster.add_argument("--part-size", type=int, help="pictures in each output file (10,000)")
  cluster.add_argument(
    "--workers", type=int, help="how many workers (as many as there is room for)"
  )
  cluster.add_argument("--cpus-per-worker", type=int, help="CPU cores for each worker (1)")
  cluster.add_argument("--gpus-per-worker", type=float, help="GPUs for each worker (0)")
  return parser


def _encode(options: argparse.Namespace) -> None:
  """Encodes pictures into an index, or a store, or on a cluster."""
  require(options.update or not options.verify, "--verify is given without --update.")
  table_of(options)
  require(options.output or options.store, "give --output or --store: where the codes are to go.")
  for name in () if options.ray else _CLUSTER:
    require(getattr(options, name) is None, f"--{name.replace('_', '-')} is given without --ray.")
  if not options.ray:  # whose workers compile on machines of their own
    keep_compiled()
  if options.ray or options.store:
    _encode_elsewhere(options)
    return
  place = options.encoder or options.workdir
  if place:
    folder = options.images or _noted(options).about["folder"]
    source = find_encoder(place, options.bits)
    encoder = load_encoder(source, options.bits)
  else:
    noted = _noted(options)
    folder = options.images or noted.about["folder"]
    encoder = encoder_of(noted)  # which looks at the note first
    source = noted.about["encoder"]["source"]
    require(
      options.bits in (None, encoder.about["bits"]),
      f"--bits is {options.bits}, but {options.output} has {noted.num_bits} bits.",
    )
  encode_folder(
    encoder,
    folder,
    options.output,
    source=source,
    batch_size=options.batch_size,
    update=options.update,
    verify=options.verify,
  )


def _noted(options: argparse.Namespace) -> HammingIndex:
  """The index to update, whose encoder or folder is to be the one that it was made with."""
  missing = "--images" if options.encoder or options.workdir else "--encoder or --workdir"
  require(options.update, f"give {missing}; only --update of an index that is there knows it.")
  require(
    os.path.exists(options.output),
    f"{options.output} is not there, so nothing can be updated; name an index that is, or make one "
    "with --encoder and --images.",
  )
  index = HammingIndex.load(options.output)
  require(
    index.encoder_digest and index.about.get("folder"),
    f"{options.output} does not say what it was made of; give --encoder and --images, without "
    "--update.",
  )
  return index


_CLUSTER = ("root", "part_size", "workers", "cpus_per_worker", "gpus_per_worker")


def _encode_elsewhere(options) -> None:
  """Encodes on a cluster, into a store, or both."""
  place = options.encoder or options.workdir
  require(place, "give --encoder or --workdir.")
  require(options.images, "give --images.")
  require(
    not options.verify,
    "--verify compares the files of an index; leave it out with --ray and --store.",
  )
  source = find_encoder(place, options.bits)
  encoder = load_encoder(source, options.bits)
  if options.ray:
    _encode_on_cluster(options, encoder, source)
  else:
    _encode_to_store(options, encoder, source)


def _encode_on_cluster(options, encoder, source) -> None:
  require(options.output, "--ray needs --output: a folder for the codes.")
  require(
    not options.update,
    "--update is for an index or a store; leave it out with --ray, which always continues.",
  )
  given = {name: getattr(options, name) for name in _CLUSTER if getattr(options, name) is not None}
  encode_distributed(
    encoder, options.images, options.output, source=source, batch_size=options.batch_size, **given
  )
  if options.store:
    about = about_of(read_plan(options.output))
    with contextlib.closing(_store(options, encoder, about, {})) as store:
      items = parts_to_store(options.output, store)
      finish(store, build_index=options.approximate)
      print(f"{store.location}: {items:,} items", flush=True)


def _encode_to_store(options, encoder, source) -> None:
  require(not options.output, "give --output or --store, not both; see udh-jax copy.")
  listed = pathlib.Path(table_of(options)["table"].replace(os.sep, "_"))
  require(
    listed.name,
    f"--table is {options.table!r}, which names no file to list unreadable pictures beside; give "
    "another name, such as codes.",
  )
  try:
    require_writable(unreadable_list(listed))
  except InputError as error:
    raise InputError(
      f"Unreadable pictures would be listed in {unreadable_list(listed).resolve()}, which cannot "
      "be written; run this in another folder."
    ) from error
  about = {
    "encoder": {"source": source, "digest": encoder.digest},
    "folder": str(pathlib.Path(options.images).resolve()),
  }
  with contextlib.closing(_store(options, encoder, about, FILE_COLUMNS)) as store:
    done = encode_folder_to_store(
      encoder,
      options.images,
      store,
      source=source,
      batch_size=options.batch_size,
      remove=options.update,
    )
    finish(store, build_index=options.approximate)
    list_unreadable(listed, done.unreadable, done.listed)
    print(
      f"{store.location}: {store.count():,} items; {done.encoded:,} of {done.listed:,} pictures "
      f"were encoded, {done.removed:,} items removed",
      flush=True,
    )


def _store(options, encoder, about, columns) -> Store:
  bits = encoder.about["bits"]
  table = table_of(options)
  return create_store(options.store, num_bits=bits, about=about, columns=columns, **table)
