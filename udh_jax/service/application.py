"""The server as an ASGI application."""

import asyncio
import base64
import binascii
import contextlib
import datetime
import functools
import importlib.metadata
import importlib.resources
import json
import logging
import mimetypes
import secrets
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, NamedTuple

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from udh_jax.data.pictures import decode_picture
from udh_jax.encoders.queries import ASYMMETRIC_READS_ALL
from udh_jax.errors import InputError
from udh_jax.machine import num_cores
from udh_jax.service import interface
from udh_jax.service.access import PAGE_POLICY, Access, SafeHeaders
from udh_jax.service.batching import Batcher
from udh_jax.service.collection import LARGEST_K, Collection, Hit, IndexCollection
from udh_jax.service.encoding import Coder, Encoded, encoded
from udh_jax.service.files import SHOWN, Opened, open_picture
from udh_jax.service.following import Following, Served
from udh_jax.service.metrics import KIND as FIGURES
from udh_jax.service.metrics import Metrics
from udh_jax.service.operations import Operation, arguments_of, describe, json_bytes
from udh_jax.service.problems import Busy, Problem
from udh_jax.service.thumbnails import KIND, Thumbnails
from udh_jax.service.uploads import (
  Room,
  Share,
  decode_upload,
  picture_of_form,
  read_body,
)

_log = logging.getLogger(__name__)
_PAGE = {"/": "index.html", "/page.css": "page.css", "/page.js": "page.js", "/icon.svg": "icon.svg"}
_LONGEST_JSON = 1 << 16  # bytes, without the outputs that may be in it
_CHUNK = 1 << 18


class Limits(NamedTuple):
  """What one client, or all of them together, may use.

  Attributes:
    upload_bytes: Of a picture that is sent.
    pixels: Of a picture that is sent.
    held_bytes: Of all pictures that are read at once.
    waiting: Queries that may wait; so many pictures, too, may be decoded or wait for it.
    max_batch: Queries encoded or searched in one call.
    max_wait: Seconds that the first of them waits for others.
  """

  upload_bytes: int = 20 * 2**20
  pixels: int = 50_000_000
  held_bytes: int = 256 * 2**20
  waiting: int = 256
  max_batch: int = 16
  max_wait: float = 0.002


class _Query(NamedTuple):
  """One search, in a batch of several."""

  collection: Collection
  code: np.ndarray
  k: int
  where: tuple[str, ...]
  outputs: np.ndarray | None = None  # what the order is by; None: the distances
  radius: int | None = None  # of a search by outputs; others are cut afterwards


class Service:
  """Answers the operations of `interface.OPERATIONS`, each by the method of its name."""

  def __init__(
    self,
    following: Following,
    *,
    access: Access,
    thumbnails: Thumbnails,
    limits: Limits,
    follow_links: bool = False,
  ):
    """Puts the parts together.

    Args:
      following: What is served.
      access: Who may ask.
      thumbnails: Of the pictures.
      limits: On what is used.
      follow_links: Open pictures that are links or lie behind one.
    """
    self._following, self._access, self._limits = following, access, limits
    self._follow_links, self._thumbnails = follow_links, thumbnails
    self._room = Room(max(limits.held_bytes, limits.upload_bytes))
    self._decoders, self._decoding = ThreadPoolExecutor(num_cores()), 0
    self.figures = Metrics()

    def batcher(run, kind, max_wait=0.0):
      return Batcher(
        run,
        max_batch=limits.max_batch,
        max_wait=max_wait,
        max_waiting=limits.waiting,
        observe=self.figures.batch.labels(kind).observe,
      )

    self._pictures = batcher(_encode_pictures, "pictures", limits.max_wait)
    self._texts = batcher(_encode_texts, "texts", limits.max_wait)
    self._searches = batcher(_search, "searches")
    self._gauges()

  def _gauges(self):
    def waiting():
      batchers = (self._pictures, self._texts, self._searches)
      return self._decoding + sum(batcher.waiting for batcher in batchers)

    gauge = self.figures.gauge
    gauge("waiting", "Queries waiting to be decoded, encoded or searched.", waiting)
    gauge("upload_bytes", "Bytes of uploaded pictures in memory.", lambda: self._room.taken)
    gauge("thumbnail_bytes", "Bytes of cached thumbnails.", lambda: self._thumbnails.kept_bytes)
    gauge(
      "index_loaded_seconds",
      "When the index was loaded (Unix time).",
      lambda: self._following.now.loaded,
    )
    gauge("index_stale", "1 if its newest state is not served.", self._stale)

  def _stale(self) -> float:
    return float(self._following.problem is not None)

  @contextlib.asynccontextmanager
  async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
    """Runs what goes on beside the requests."""
    batchers = (self._pictures, self._texts, self._searches)
    for batcher in batchers:
      batcher.start()
    follow = asyncio.create_task(self._following.run(self._loaded))
    try:
      yield
    finally:
      follow.cancel()
      await asyncio.gather(follow, return_exceptions=True)
      for batcher in batchers:
        await batcher.stop()
      self._decoders.shutdown(cancel_futures=True)
      self._thumbnails.stop()

  def _loaded(self, taken: bool) -> None:
    self.figures.loads.labels("taken" if taken else "refused").inc()

  # What is asked of the collection, in the thread of the searches.

  async def collection(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """What is served, and what may be sent."""
    served = self._following.now
    items = await self._searches.call(served.collection.count)
    coder, encoder = served.coder, None
    if coder is not None:
      encoder = {"digest": coder.digest, "method": coder.method, "words": len(coder.words)}
    return _answer(
      {
        "title": served.collection.title,
        "items": items,
        "bits": served.collection.num_bits,
        "index": served.collection.version,
        "encoder": encoder,
        "takes": {
          "pictures": bool(coder and coder.picture_size),
          "texts": bool(coder and coder.words),
          "asymmetric": coder is not None and isinstance(served.collection, IndexCollection),
        },
        "columns": dict(served.collection.columns),
        "limits": {
          "upload_bytes": self._limits.upload_bytes,
          "pixels": self._limits.pixels,
          "k": LARGEST_K,
        },
      }
    )

  async def items(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """Names of the collection, a page at a time."""
    collection, offset = self._following.now.collection, arguments["offset"]
    names, total = await self._searches.call(
      collection.page, offset, arguments["limit"], arguments["contains"]
    )
    return _answer(
      {
        "items": [_links(name) for name in names],
        "offset": offset,
        "total": total,
        "index": collection.version,
      }
    )

  async def item(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """An item with its code."""
    collection = self._following.now.collection
    item = await self._item(collection, arguments["name"])
    return _answer(
      _links(item.name)
      | {
        "code": item.code.tobytes().hex(),
        "metadata": dict(item.metadata),
        "index": collection.version,
      }
    )

  async def _item(self, collection: Collection, name: str):
    item = await self._searches.call(collection.item, name)
    if item is None:
      raise Problem(f"The collection has no item {name[:200]!r}.", status=404, code="no_such_item")
    return item

  async def words(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """Words that the encoder knows."""
    coder, start = self._following.now.coder, arguments["start"]
    known = coder.words if coder is not None else ()
    found = [word for word in known if word.startswith(start)]
    return _answer({"words": found[: arguments["limit"]]})

  # Neighbours.

  def _asked(self, arguments: Mapping[str, Any]) -> Served:
    """What is served, if it can be asked so."""
    served = self._following.now
    if arguments["asymmetric"] and not isinstance(served.collection, IndexCollection):
      raise Problem(ASYMMETRIC_READS_ALL, code="no_outputs")
    return served

  async def neighbours_of_item(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """Neighbours of an item, itself left out."""
    served = self._asked(arguments)
    return await self._by_name(served, arguments["name"], arguments)

  async def neighbours(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """Neighbours of a picture, a code, a text or an item."""
    served = self._asked(arguments)
    kind = _media_type(request)
    if kind == "application/json":
      body = await read_body(request, _LONGEST_JSON + 6 * served.collection.num_bits)
      return await self._by_json(served, _json_object(body), arguments)
    raw = kind in ("", "application/octet-stream") or kind.startswith("image/")
    if not raw and kind != "multipart/form-data":
      raise _wrong_kind(kind)
    if served.coder is None or not served.coder.picture_size:
      raise Problem(
        "The encoder of this collection takes no pictures; ask by an item or a code.",
        code="no_pictures",
      )
    picture = await self._sent(request, served.coder.picture_size, raw)
    query = await self._pictures((served.coder, picture))
    return await self._found(served, {"kind": "picture"}, query, arguments)

  async def _sent(self, request: Request, size: int, raw: bool) -> np.ndarray:
    """The picture that is sent; its file is not held any more once it is decoded."""
    with Share(self._room) as share:
      data = await read_body(request, self._limits.upload_bytes, share=share)
      if not raw:
        data = await picture_of_form(request, data)  # in its place: a form is not held twice
      return await self._decoded(lambda data: decode_upload(data, size, self._limits.pixels), data)

  async def _decoded(self, decode: Callable[[Any], np.ndarray], data: Any) -> np.ndarray:
    """A picture, decoded in a thread; a small file can take as long as any."""
    if self._decoding >= self._limits.waiting:
      raise Busy(f"{self._decoding} pictures are being decoded already; send it again in a moment.")
    self._decoding += 1
    try:
      return await asyncio.get_running_loop().run_in_executor(self._decoders, decode, data)
    finally:
      self._decoding -= 1

  async def _by_json(self, served: Served, asked: dict, arguments) -> Response:
    known = ("hex", "base64", "text", "name", "outputs")
    if len(asked) != 1 or not set(asked) <= set(known):
      raise Problem(
        f"The JSON object has {', '.join(map(repr, sorted(asked))) or 'nothing'}; give one of "
        f"{', '.join(known)}, and k, radius and where in the address.",
        code="bad_json",
      )
    ((kind, value),) = asked.items()
    if not isinstance(value, str):
      raise Problem(f"{kind} is not a string.", code="bad_json")
    if kind == "name":
      return await self._by_name(served, value, arguments)
    if kind == "text":
      return await self._by_text(served, value, arguments)
    num_bits = served.collection.num_bits
    if kind == "outputs":
      query = encoded(_outputs_of(value, num_bits))
    else:
      query = Encoded(_code_of(value, kind, num_bits), None)
    return await self._found(served, {"kind": "code"}, query, arguments)

  async def _by_name(self, served: Served, name: str, arguments) -> Response:
    item = await self._item(served.collection, name)
    outputs = None
    if arguments["asymmetric"]:
      outputs = await self._outputs_of_item(served, name)
    about = {"kind": "item", "name": name}
    return await self._found(served, about, Encoded(item.code, outputs), arguments)

  async def _outputs_of_item(self, served: Served, name: str) -> np.ndarray:
    """What the encoder says of an item, whose picture is read again: the index has its code."""
    if served.coder is None or not served.coder.picture_size:
      raise Problem(
        "The encoder of this collection takes no pictures; ask without asymmetric.",
        code="no_pictures",
      )
    opened = await self._open(served.collection, name)
    with opened.file:
      decode = functools.partial(_decode_own, size=served.coder.picture_size)
      picture = await self._decoded(decode, opened.file)
    return (await self._pictures((served.coder, picture))).outputs

  async def _by_text(self, served: Served, text: str, arguments) -> Response:
    if served.coder is None:
      raise Problem(
        "The encoder of this collection is not known; ask by an item or a code.", code="no_texts"
      )
    known, unknown = served.coder.known_words(text)
    query = await self._texts((served.coder, known))
    about = {"kind": "text", "words": known, "unknown_words": unknown}
    return await self._found(served, about, query, arguments)

  async def _found(self, served: Served, about: dict, query: Encoded, arguments) -> Response:
    """The answer for a query, which the collection of the same ``served`` has to give."""
    collection, radius = served.collection, arguments["radius"]
    k = arguments["k"] or (interface.DEFAULT_K if radius is None else LARGEST_K)
    own = about.get("name")
    # One more than is shown tells whether there are more, and another stands for the item itself.
    most = k + 1 + (own is not None)
    wanted = _Query(collection, query.code, most, tuple(arguments["where"]))
    about = about | {"code": query.code.tobytes().hex()}
    if arguments["asymmetric"]:
      if query.outputs is None:
        raise Problem(
          "A code has nothing but signs; ask by a picture, text, item or outputs, or without "
          "asymmetric.",
          code="no_outputs",
        )
      wanted = wanted._replace(outputs=query.outputs, radius=radius)
      about["outputs"] = base64.b64encode(query.outputs.astype("<f4").tobytes()).decode()
    hits = await self._searches(wanted)
    if isinstance(hits, InputError):
      raise hits
    near = [hit for hit in hits if radius is None or hit.distance <= radius]
    others = [hit for hit in near if hit.name != own]
    complete = len(near) < wanted.k and len(others) <= k
    if complete and len(hits) == wanted.k:  # the radius alone says that there are no more
      complete = await self._searches.call(collection.is_exact, wanted.k)
    items = await self._searches.call(collection.count)
    return _answer(
      {
        "query": about,
        "bits": collection.num_bits,
        "items": items,
        "complete": complete,
        "neighbours": [
          _links(hit.name) | {"distance": hit.distance, "metadata": dict(hit.metadata)}
          for hit in others[:k]
        ],
        "index": collection.version,
      }
    )

  # Pictures.

  async def _open(self, collection: Collection, name: str) -> Opened:
    await self._item(collection, name)
    return await self._thumbnails.call(
      functools.partial(open_picture, collection.folder, name, follow_links=self._follow_links)
    )

  async def picture(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """The picture of an item, as its file is."""
    name = arguments["name"]
    opened = await self._open(self._following.now.collection, name)
    headers = {
      "ETag": opened.tag,
      "Cache-Control": "private, no-cache",
      "Content-Disposition": _disposition(name, shown=opened.kind in SHOWN),
    }
    if request.headers.get("if-none-match") == opened.tag:
      opened.file.close()
      return Response(status_code=304, headers=headers)
    headers["Content-Length"] = str(opened.size)
    return StreamingResponse(self._contents(opened), media_type=opened.kind, headers=headers)

  async def _contents(self, opened: Opened) -> AsyncIterator[bytes]:
    with opened.file:
      left = opened.size
      while left:
        data = await self._thumbnails.call(opened.file.read, min(left, _CHUNK))
        if not data:
          raise OSError("the file became shorter while it was sent")
        left -= len(data)
        yield data

  async def thumbnail(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """A small square copy of an item's picture."""
    name = arguments["name"]
    collection = self._following.now.collection
    opened = await self._open(collection, name)
    found = await self._thumbnails.get(f"{collection.folder}\0{name}", opened)
    self.figures.thumbnails.labels("made" if found.made else "kept").inc()
    headers = {"ETag": found.tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == found.tag:
      return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=KIND, headers=headers)

  # About the server.

  async def session(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """Sets a cookie for the token, so that a browser sends it."""
    if _media_type(request) != "application/json":
      raise _wrong_kind(_media_type(request))
    asked = _json_object(await read_body(request, _LONGEST_JSON))
    token = asked.get("token")
    if set(asked) != {"token"} or not isinstance(token, str):
      raise Problem('Send {"token": "..."}.', code="bad_json")
    answer = _answer({"token": self._access.has_token})
    self._access.begin_session(token, request, answer)
    return answer

  async def healthz(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """Whether it answers."""
    served, problem = self._following.now, self._following.problem
    found: dict[str, Any] = {"status": "ok" if problem is None else "stale"}
    if self._access.is_known(request):
      loaded = datetime.datetime.fromtimestamp(served.loaded, datetime.UTC)
      found |= {
        "items": served.collection.last_count,
        "bits": served.collection.num_bits,
        "index": served.collection.version,
        "loaded": loaded.isoformat(timespec="milliseconds"),
        "problem": problem,
      }
    return _answer(found)

  async def openapi(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """The description of the interface."""
    return _answer(self.description())

  def description(self) -> dict[str, Any]:
    """The description of the interface."""
    return describe(
      interface.OPERATIONS,
      schemas=interface.SCHEMAS,
      version=_version(),
      token=self._access.has_token,
    )

  async def metrics(self, request: Request, arguments: Mapping[str, Any]) -> Response:
    """Figures for Prometheus."""
    return Response(self.figures.text(), headers={"Content-Type": FIGURES})

  def application(self) -> Starlette:
    """The ASGI application."""
    routes = [
      Route(operation.path, self._endpoint(operation), methods=[operation.method])
      for operation in interface.OPERATIONS
    ]
    routes += [Route(path, self._page(file)) for path, file in _PAGE.items()]
    application = Starlette(
      routes=routes,
      middleware=[Middleware(SafeHeaders)],
      exception_handlers={HTTPException: self._refuse},
      lifespan=self.lifespan,
    )
    # It would lead to an address with the host of the request in it, before that is looked at.
    application.router.redirect_slashes = False
    return application

  def _page(self, file: str):
    data = importlib.resources.files("udh_jax.service").joinpath("page", file).read_bytes()
    kind = mimetypes.guess_type(file)[0]
    headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}

    async def page(request: Request) -> Response:
      try:
        self._access.check_host(request)
      except Problem as problem:
        return _problem(problem)
      return Response(data, media_type=kind, headers=headers)

    return page

  def _endpoint(self, operation: Operation):
    run = getattr(self, operation.name)
    seconds = self.figures.seconds.labels(operation.name)

    async def endpoint(request: Request) -> Response:
      start = time.perf_counter()
      try:
        self._access.check_host(request)
        if operation.method == "POST":
          self._access.check_site(request)
        if not operation.open:
          self._access.check_token(request)
        response = await run(request, arguments_of(operation, request.scope["query_string"]))
      except Problem as problem:
        response = _problem(problem)
      except InputError as error:
        response = _problem(Problem(str(error), code="bad_request"))
      except Exception as error:
        response = _defect(error, operation.name)
      self.figures.requests.labels(operation.name, response.status_code).inc()
      seconds.observe(time.perf_counter() - start)
      return response

    return endpoint

  async def _refuse(self, request: Request, error: Exception) -> Response:
    """There is no such address, or no such method."""
    if not isinstance(error, HTTPException):
      raise error
    words = {
      404: "There is nothing at this address",
      405: "This method is not allowed at this address",
    }
    message = f"{words.get(error.status_code, error.detail)}; openapi.json tells what there is."
    code = {404: "no_such_address", 405: "no_such_method"}.get(error.status_code, "bad_request")
    headers = dict(error.headers or {})
    return _problem(Problem(message, status=error.status_code, code=code, headers=headers))


def _encode_pictures(batch: list[tuple[Coder, np.ndarray]]) -> list[Encoded]:
  return _by_coder(batch, lambda coder, pictures: coder.pictures(pictures))


def _encode_texts(batch: list[tuple[Coder, list[str]]]) -> list[Encoded]:
  return _by_coder(batch, lambda coder, texts: coder.texts(texts))


def _by_coder(batch, encode) -> list[Encoded]:
  """Encodes a batch, in which there are two encoders just after the index was replaced."""
  found: list[Any] = [None] * len(batch)
  for coder in {id(coder): coder for coder, _ in batch}.values():
    rows = [row for row, (own, _) in enumerate(batch) if own is coder]
    for row, query in zip(rows, encode(coder, [batch[row][1] for row in rows]), strict=True):
      found[row] = query
  return found


def _search(batch: list[_Query]) -> list[list[Hit] | InputError]:
  """Searches a batch; what cannot be searched gets its error in place of hits."""
  found: list[Any] = [None] * len(batch)
  groups: dict[tuple, list[int]] = {}
  for row, query in enumerate(batch):
    by_outputs = query.outputs is not None
    group = (id(query.collection), query.where, by_outputs, query.radius)
    groups.setdefault(group, []).append(row)
  for rows in groups.values():
    queries = [batch[row] for row in rows]
    first, most = queries[0], max(query.k for query in queries)
    codes = np.stack([query.code for query in queries])
    outputs = [query.outputs for query in queries if query.outputs is not None]
    try:
      if outputs:
        assert isinstance(first.collection, IndexCollection)  # others were refused
        several = first.collection.most_similar(
          codes, np.stack(outputs), most, first.radius, first.where
        )
      else:
        several = first.collection.nearest(codes, most, first.where)
    except InputError as error:
      for row in rows:
        found[row] = error
      continue
    for row, hits in zip(rows, several, strict=True):
      found[row] = hits[: batch[row].k]
  return found


def _decode_own(file: IO[bytes], size: int) -> np.ndarray:
  """Decodes a picture of the collection, as it was when it was encoded."""
  try:
    return decode_picture(file, size)
  except ValueError as error:
    message = f"The picture cannot be read any more ({' '.join(str(error).split())})."
    raise Problem(message, status=422, code="unreadable_picture") from None


def _bytes_of(text: str, kind: str, what: str) -> bytes:
  """What a client has written down in hexadecimal or base64."""
  try:
    return bytes.fromhex(text) if kind == "hex" else base64.b64decode(text, validate=True)
  except (ValueError, binascii.Error):
    raise Problem(f"{what} no {kind} text.", status=422, code="bad_code") from None


def _outputs_of(text: str, num_bits: int) -> np.ndarray:
  """Outputs that a client has from an earlier answer."""
  data = _bytes_of(text, "base64", "The outputs are")
  if len(data) != 4 * num_bits:
    raise Problem(
      f"The outputs have {len(data)} bytes; codes of this collection have {num_bits} bits, which "
      f"are {4 * num_bits} bytes of float32.",
      status=422,
      code="bad_code",
    )
  outputs = np.frombuffer(data, "<f4").astype(np.float32)
  if not np.isfinite(outputs).all():
    raise Problem("The outputs are not finite.", status=422, code="bad_code")
  return outputs


def _code_of(text: str, kind: str, num_bits: int) -> np.ndarray:
  """A code that a client has written down."""
  data = _bytes_of(text, kind, "The code is")
  num_bytes = -(-num_bits // 8)
  if len(data) != num_bytes:
    raise Problem(
      f"The code has {len(data)} bytes; codes of this collection have {num_bits} bits, "
      f"{num_bytes} bytes.",
      status=422,
      code="bad_code",
    )
  code = np.frombuffer(data, np.uint8)
  if code[-1] & ((1 << -num_bits % 8) - 1):
    raise Problem(f"Bits after bit {num_bits} are set.", status=422, code="bad_code")
  return code


def _json_object(body: bytes) -> dict[str, Any]:
  try:
    found = json.loads(body)
  except (ValueError, RecursionError):
    raise Problem("What was sent is not JSON.", code="bad_json") from None
  if not isinstance(found, dict):
    raise Problem("What was sent is not a JSON object.", code="bad_json")
  return found


def _media_type(request: Request) -> str:
  return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _wrong_kind(kind: str) -> Problem:
  return Problem(
    f"Content-Type {kind[:60]!r} is not read here; send a picture as image/jpeg (or what it is) or "
    "as multipart/form-data, anything else as application/json.",
    status=415,
    code="wrong_kind",
  )


def _links(name: str) -> dict[str, str]:
  """An item's name and addresses, which are relative so that a proxy may put them anywhere."""
  query = urllib.parse.urlencode({"name": name}, errors="surrogateescape")
  return {"name": name} | {kind: f"v1/{kind}?{query}" for kind in ("item", "picture", "thumbnail")}


def _disposition(name: str, *, shown: bool) -> str:
  file = urllib.parse.quote(name.rsplit("/", 1)[-1], errors="surrogateescape")
  return f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{file}"


def _answer(value: Any) -> Response:
  return Response(
    json_bytes(value), media_type="application/json", headers={"Cache-Control": "no-store"}
  )


def _problem(problem: Problem) -> Response:
  return Response(
    json_bytes(problem.body()),
    status_code=problem.status,
    media_type="application/json",
    headers={"Cache-Control": "no-store", **problem.headers},
  )


def _defect(error: Exception, where: str) -> Response:
  mark = secrets.token_hex(4)
  _log.error("defect %s in %s", mark, where, exc_info=error)
  return _problem(
    Problem(f"An error in the server; its log has more at {mark}.", status=500, code="defect")
  )


def _version() -> str:
  try:
    return importlib.metadata.version("udh_jax")
  except importlib.metadata.PackageNotFoundError:
    return "unknown"
