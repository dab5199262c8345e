"""Runs the application on a port of this machine until it is told to stop."""

import contextlib
import logging
import os
import pathlib
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import uvicorn
from PIL import Image

from udh_jax.errors import InputError, require
from udh_jax.service.access import Access, is_loopback
from udh_jax.service.application import Limits, Service
from udh_jax.service.following import Following, Source
from udh_jax.service.thumbnails import Cache, Thumbnails

_GRACE = 10  # seconds that requests have to end after Ctrl-C
_log = logging.getLogger("udh_jax.service")


class Settings(NamedTuple):
  """How to serve a collection.

  Attributes:
    host: Address to listen on.
    port: 0 takes a free one.
    token: That clients must know; None asks for none.
    allow_hosts: Names by which the server may be called, besides those of this machine.
    cache: Folder of the thumbnails.
    cache_bytes: Most bytes in it.
    follow_links: Serve pictures that are links.
    access_log: Write a line for each request.
    watch: Seconds between two looks at the index file.
    limits: On what is used.
  """

  host: str
  port: int
  token: str | None
  allow_hosts: Sequence[str]
  cache: pathlib.Path
  cache_bytes: int
  follow_links: bool
  access_log: bool
  watch: float
  limits: Limits


def bind(host: str, port: int) -> socket.socket:
  """A socket at an address, which is taken before anything slow is done.

  Raises:
    InputError: If the address is unknown or the port is in use.
  """
  where = f"Port {port} of {host}"
  try:
    ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
  except (OSError, UnicodeError) as error:
    reason = getattr(error, "strerror", None) or error
    raise InputError(f"There is no address {host!r} ({reason}); give another --host.") from error
  found = socket.socket(family, kind, protocol)
  try:
    if os.name != "nt":  # where it would let two servers have one port
      found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.bind(address)
    # Two sockets may be bound to one port as long as neither listens. This tells at once; until
    # there are answers, clients wait.
    found.listen(128)
  except OSError as error:
    found.close()
    raise InputError(
      f"{where} cannot be used ({error.strerror}); give another --port, 0 for any free one."
    ) from error
  found.set_inheritable(True)
  return found


def allowed_hosts(settings: Settings, address: str) -> Sequence[str] | None:
  """Names that requests may call the server by; None for all.

  Behind a token names do not matter. On addresses that others reach they are not known. A server
  of this machine alone has the name that it was given, too.

  Args:
    settings: How to serve.
    address: That is listened on: the one that ``settings.host`` stands for.
  """
  if settings.allow_hosts:
    return settings.allow_hosts
  if settings.token is not None or not is_loopback(address):
    return None
  return (settings.host,)


def serve(source: Source, settings: Settings, *, ready: Callable[[str], None]) -> None:
  """Serves until SIGINT or SIGTERM.

  Args:
    source: Of the collection.
    settings: How.
    ready: Called with the address once there are answers.

  Raises:
    InputError: If the collection or its encoder cannot be loaded or the port is in use.
  """
  # Of pictures that are refused in the answer, by a limit that may be lower.
  warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
  with contextlib.closing(bind(settings.host, settings.port)) as listening:
    host, port = listening.getsockname()[:2]
    now = source.load()
    if now.coder is None:
      _log.warning("%s does not say which encoder made it: no pictures, no words", source.place)
    folder = now.collection.folder
    if folder is None:
      _log.warning(
        "%s does not say where the pictures are; name the folder by --images", source.place
      )
    elif not folder.is_dir():
      _log.warning("the folder of the pictures (%s) is not there; --images names another", folder)
    service = Service(
      Following(source, now, every=settings.watch),
      access=Access(token=settings.token, hosts=allowed_hosts(settings, host)),
      thumbnails=Thumbnails(Cache(settings.cache, settings.cache_bytes), threads=2),
      limits=settings.limits,
      follow_links=settings.follow_links,
    )
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if settings.token is None and not is_loopback(host):
      _log.warning("whoever reaches %s sees the pictures; --token-file asks for a token", address)
    config = uvicorn.Config(
      service.application(),
      log_config=None,
      access_log=settings.access_log,
      server_header=False,
      timeout_graceful_shutdown=_GRACE,
      lifespan="on",
    )
    _run(_Server(config, lambda: ready(address)), listening)


class _Server(uvicorn.Server):
  """Says when there are answers."""

  def __init__(self, config, ready):
    super().__init__(config)
    self._ready = ready

  async def startup(self, sockets=None):
    await super().startup(sockets)
    if self.started:
      self._ready()


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
  """Runs until a signal; both end the process as if it had done what it was to do."""
  # When it has ended, uvicorn raises the signals again that it was ended by.
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    with contextlib.suppress(KeyboardInterrupt):
      server.run(sockets=[listening])
  finally:
    signal.signal(signal.SIGTERM, before)
  require(server.started, "The server could not start; its log says why.")


def log_to_stderr() -> None:
  """One line for each event, on stderr; requests only where `Settings.access_log` asks for them."""
  handler = logging.StreamHandler(sys.stderr)
  handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
  for name, level in (
    ("udh_jax", logging.WARNING),
    ("uvicorn.error", logging.ERROR),
    ("uvicorn.access", logging.INFO),
  ):
    logger = logging.getLogger(name)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)
