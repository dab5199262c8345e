"""Pictures that clients send: read up to a limit, and looked at before they are decoded."""

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from udh_jax.data.pictures import decode_picture, picture_size
from udh_jax.service.problems import Busy, Problem

# Pillow reads many more, some by other programs; none of these is needed for a picture of a client.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
PART = "picture"  # of a form
_DRAINED = 4  # times the limit: read and thrown away, so that the client comes to hear why


class Room:
  """How many bytes of pictures may be held at once."""

  def __init__(self, size: int):
    self._left = self._size = size

  @property
  def taken(self) -> int:
    """Bytes held now."""
    return self._size - self._left

  def take(self, size: int) -> None:
    """Takes room for a picture.

    Raises:
      Busy: If there is not so much left.
    """
    if size > self._left:
      raise Busy("Too many pictures are being read at once; send it again in a moment.")
    self._left -= size

  def give(self, size: int) -> None:
    """Gives it back."""
    self._left += size


class Share:
  """What one client holds of a room; a context, at whose end it holds nothing any more."""

  def __init__(self, room: Room):
    self._room, self._size = room, 0

  def __enter__(self) -> "Share":
    return self

  def __exit__(self, *_: object) -> None:
    self.give_back()

  def take(self, size: int) -> None:
    """Takes so much more.

    Raises:
      Busy: If there is not so much left.
    """
    self._room.take(size)
    self._size += size

  def give_back(self) -> None:
    """Gives back all that was taken."""
    self._room.give(self._size)
    self._size = 0


def declared_length(request: Request) -> int | None:
  """What the client says of the length of what it sends; None if it does not.

  It does not where it sends in chunks: HTTP has a length beside them ignored (RFC 9112, 6.3).
  """
  if "transfer-encoding" in request.headers:
    return None
  text = request.headers.get("content-length", "")
  return int(text) if text.isascii() and text.isdigit() else None


async def read_body(
  request: Request, limit: int, *, seconds: float = 60.0, share: Share | None = None
) -> bytes:
  """What a client sends.

  Args:
    request: Of which nothing was read yet.
    limit: Most bytes.
    seconds: By when it has to be there.
    share: Of a room that is taken as bytes come, whatever length the client declares; it is held
      until the share ends. None takes none.

  Raises:
    Problem: If it is longer, there is no room for it, it does not come in time, or the client goes
      away.
  """
  declared = declared_length(request)
  if declared is not None and declared > _DRAINED * limit:
    raise _too_long(limit)
  parts, size, busy = [], 0, None
  try:
    async with asyncio.timeout(seconds):
      async for part in request.stream():
        size += len(part)
        if size > _DRAINED * limit:
          break
        if size <= limit and busy is None:
          try:
            if share is not None:
              share.take(len(part))
            parts.append(part)
            continue
          except Busy as error:
            busy = error
        parts.clear()
        if share is not None:
          share.give_back()
  except TimeoutError:
    message = f"What was to be sent did not come within {seconds:g} seconds."
    raise Problem(message, status=408, code="too_slow") from None
  except ClientDisconnect:
    raise Problem("The client went away.", code="gone_away") from None
  if size > limit:
    raise _too_long(limit)
  if busy is not None:
    raise busy
  return b"".join(parts)


def _too_long(limit):
  return Problem(
    f"More than {limit / 2**20:.3g} MiB were sent, the most that is allowed; send less.",
    status=413,
    code="too_large",
  )


async def picture_of_form(request: Request, body: bytes) -> bytes:
  """The file of the part `PART` of a form.

  Body, file and a copy are held for a moment, but by one request at a time: nothing is waited for.

  Raises:
    Problem: If the form is damaged, or has no such part, or others.
  """

  async def stream() -> AsyncGenerator[bytes, None]:
    yield body

  parser = MultiPartParser(
    request.headers, stream(), max_files=1, max_fields=1, max_part_size=max(len(body), 1)
  )
  parser.spool_max_size = len(body) + 1  # what was read up to a limit stays in memory
  try:
    form = await parser.parse()
  except (MultiPartException, HTTPException, KeyError) as error:
    text = getattr(error, "message", None) or str(error)
    raise Problem(f"The form cannot be read ({text}).", code="bad_form") from None
  async with _closing(form):
    part = form.get(PART)
    if part is None or list(form) != [PART]:
      raise Problem(
        f"The form has the parts {', '.join(map(repr, form)) or 'none'}; send one, named {PART!r}.",
        code="bad_form",
      )
    if isinstance(part, str):  # read as text: bytes of a picture are lost
      raise Problem(
        f"The part {PART!r} of the form has no file name; send a file, as curl -F "
        f"{PART}=@FILE does.",
        code="bad_form",
      )
    return await part.read()


class _closing:
  def __init__(self, form):
    self._form = form

  async def __aenter__(self):
    return self._form

  async def __aexit__(self, *_):
    await self._form.close()


def decode_upload(data: bytes, size: int, max_pixels: int) -> np.ndarray:
  """Decodes a client's picture as `decode_picture` does, after a look at its first bytes.

  Raises:
    Problem: If it is not a picture, of a format that is not read, too large, cut short or damaged.
  """
  from PIL import Image

  if not data:
    raise _unreadable("nothing was sent")
  try:
    width, height = picture_size(data, formats=FORMATS)
  except Image.DecompressionBombError:
    raise _too_many(None, max_pixels) from None
  except Exception:  # Pillow raises many types on damaged files
    raise _unreadable(f"it is none of {', '.join(FORMATS)}, or damaged") from None
  if width * height > max_pixels:
    raise _too_many((width, height), max_pixels)
  try:
    return decode_picture(data, size, formats=FORMATS, max_pixels=max_pixels)
  except ValueError as error:
    raise _unreadable(" ".join(str(error).split())) from None


def _unreadable(reason):
  return Problem(f"The picture cannot be read ({reason}).", status=422, code="unreadable_picture")


def _too_many(size, max_pixels):
  given = f"{size[0]} x {size[1]}" if size else "far more"
  return Problem(
    f"The picture has {given} pixels; {max_pixels / 1e6:g} million are allowed. Send a smaller "
    "one.",
    status=413,
    code="too_many_pixels",
  )
