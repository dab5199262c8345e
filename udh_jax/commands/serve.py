"""A page that finds neighbours, and an interface for programs: udh-jax serve --index FILE.

The index is one that ``udh-jax encode`` wrote; --store serves a table of a database instead. Open
the address that is printed in a browser; drop, paste or choose a picture, or pick one of the
collection. Programs ask POST /v1/neighbours; /openapi.json describes it. A new version of the index
file is taken up without a restart. It listens on this machine alone unless --host says otherwise.
docs/serving.md has more.
"""

import argparse
import os
import pathlib
from collections.abc import Sequence

from udh_jax.commands.ending import guarded
from udh_jax.commands.store_flags import add_store_flags, table_of
from udh_jax.errors import InputError, require
from udh_jax.extras import require_extra
from udh_jax.machine import cache_folder, keep_compiled

TOKEN = "UDH_JAX_TOKEN"  # variable of the environment


def main(arguments: Sequence[str] | None = None) -> None:
  """The program; see the top of the file."""
  options = _parser().parse_args(arguments)
  guarded(lambda: _serve(options))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser("udh-jax serve", description=__doc__)
  what = parser.add_mutually_exclusive_group(required=True)
  what.add_argument("--index", help="index written by udh-jax encode")
  add_store_flags(parser, what)
  parser.add_argument(
    "--approximate", action="store_true", help="with --store: search by its approximate index"
  )
  parser.add_argument("--encoder", help="where the encoder is now, if it was moved")
  parser.add_argument("--images", help="where the pictures are now, if they were moved")
  parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
  parser.add_argument(
    "--port", type=int, default=8000, help="port to listen on (8000); 0 takes a free one"
  )
  parser.add_argument(
    "--token-file", help=f"file that holds the token which clients must send; or set {TOKEN}"
  )
  parser.add_argument(
    "--allow-host", action="append", default=[], metavar="NAME",
    help="another name by which clients may call the server, as behind a proxy; may be repeated",
  )  # fmt: skip
  parser.add_argument(
    "--max-upload-mb", type=float, default=20, help="largest picture to accept, MiB (20)"
  )
  parser.add_argument(
    "--max-megapixels",
    type=float,
    default=50,
    help="largest picture to accept, million pixels (50; at most 178)",
  )
  parser.add_argument(
    "--max-batch", type=int, default=16, help="most pictures encoded at once (16)"
  )
  parser.add_argument(
    "--max-wait-ms", type=float, default=2, help="how long a picture waits for others, ms (2)"
  )
  parser.add_argument("--cache", help="folder of thumbnails (~/.cache/udh_jax/thumbnails)")
  parser.add_argument(
    "--cache-mb", type=float, default=512, help="largest size of that folder, MiB (512)"
  )
  parser.add_argument(
    "--follow-links", action="store_true", help="also serve pictures that are links"
  )
  parser.add_argument("--access-log", action="store_true", help="log a line for each request")
  return parser


def _require_valid(options: argparse.Namespace) -> None:
  from PIL import Image

  require(0 <= options.port < 65536, f"--port is {options.port}; give 0 to 65535.")
  require(1 <= options.max_batch <= 1024, f"--max-batch is {options.max_batch}; give 1 to 1024.")
  require(
    0 <= options.max_wait_ms <= 1000, f"--max-wait-ms is {options.max_wait_ms:g}; give 0 to 1000."
  )
  for name in ("max_upload_mb", "max_megapixels", "cache_mb"):
    value = getattr(options, name)
    flag = name.replace("_", "-")
    require(0 < value < 1e6, f"--{flag} is {value:g}; give more than 0 and less than 1e6.")
  most = 2 * (Image.MAX_IMAGE_PIXELS or 10**12) // 10**6
  require(
    options.max_megapixels <= most,
    f"--max-megapixels is {options.max_megapixels:g}; give at most {most}: Pillow decodes no "
    "larger pictures.",
  )


def _serve(options: argparse.Namespace) -> None:
  """Serves until it is stopped."""
  _require_valid(options)
  table = table_of(options)
  # Before anything is loaded: a port in use, or no extra, is said at once.
  for module in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    require_extra(module, extra="serve")
  from udh_jax.service import server
  from udh_jax.service.application import Limits
  from udh_jax.service.batching import batch_sizes
  from udh_jax.service.following import IndexFile, Source, StoreTable

  keep_compiled()
  server.log_to_stderr()
  settings = server.Settings(
    host=options.host,
    port=options.port,
    token=_token(options.token_file),
    allow_hosts=options.allow_host,
    cache=pathlib.Path(options.cache or cache_folder() / "thumbnails"),
    cache_bytes=int(options.cache_mb * 2**20),
    follow_links=options.follow_links,
    access_log=options.access_log,
    watch=1.0,
    limits=Limits(
      upload_bytes=int(options.max_upload_mb * 2**20),
      pixels=int(options.max_megapixels * 1e6),
      max_batch=options.max_batch,
      max_wait=options.max_wait_ms / 1000,
    ),
  )
  shared = {
    "encoder": options.encoder,
    "folder": options.images,
    "batch_sizes": batch_sizes(options.max_batch),
  }
  source: Source
  if options.index is not None:
    source = IndexFile(options.index, **shared)
  else:
    source = StoreTable(options.store, approximate=options.approximate, **table, **shared)

  def ready(address):
    print(f"{source.place} is served at {address} (Ctrl-C stops)", flush=True)

  server.serve(source, settings, ready=ready)
  print("stopped", flush=True)


def _token(file: str | None) -> str | None:
  """The token of a file, or of the environment; a command line would show it to others."""
  token = os.environ.get(TOKEN)
  if file is not None:
    try:
      token = pathlib.Path(file).read_text().strip()
    except (OSError, ValueError) as error:
      reason = getattr(error, "strerror", None) or "it is not text"
      raise InputError(f"The token file {file} cannot be read ({reason}).") from error
  if token is None:
    return None
  require(
    len(token) >= 8 and token.isascii() and token.isprintable() and " " not in token,
    "The token must have 8 or more visible ASCII characters, such as openssl rand -hex 16 makes.",
  )
  return token
