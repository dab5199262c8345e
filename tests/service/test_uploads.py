"""Pictures of clients: looked at before they are decoded."""

import asyncio
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin
from starlette.requests import Request

from udh_jax.data.pictures import decode_picture
from udh_jax.service import uploads
from udh_jax.service.problems import Busy, Problem
from udh_jax.service.thumbnails import make_thumbnail
from udh_jax.service.uploads import Room, Share, declared_length, decode_upload, read_body


def encoded(kind, size=(30, 20)):
  data = io.BytesIO()
  Image.new("RGB", size, "teal").save(data, kind)
  return data.getvalue()


def refused(data, max_pixels=10**6):
  with pytest.raises(Problem) as caught:
    decode_upload(data, 8, max_pixels)
  return caught.value


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_reads_what_encoding_reads(kind):
  data = encoded(kind)
  np.testing.assert_array_equal(decode_upload(data, 8, 600), decode_picture(data, 8))
  assert refused(data, 599).code == "too_many_pixels"


def test_damaged_metadata_is_no_reason_to_refuse():
  data = io.BytesIO()
  about = PngImagePlugin.PngInfo()
  about.add_text("Comment", "written by hand")
  Image.new("RGB", (30, 20), "teal").save(data, "PNG", pnginfo=about)
  damaged = bytearray(data.getvalue())
  damaged[damaged.index(b"tEXt") + 20] ^= 0xFF
  assert decode_upload(bytes(damaged), 8, 600).shape == (8, 8, 3)
  assert Image.open(io.BytesIO(make_thumbnail(bytes(damaged)))).size == (20, 20)


def png_of(width, height):
  """A PNG that says how large it is, and holds as good as nothing."""

  def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  rows = zlib.compress(bytes(100))
  return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(2000, 2000), (10_000, 9_000), (60_000, 60_000)])
def test_a_bomb_is_refused_before_it_is_decoded(size, monkeypatch):
  monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
  problem = refused(png_of(*size))
  assert (problem.status, problem.code) == (413, "too_many_pixels")
  assert "1 million" in str(problem)


def test_other_formats_are_not_even_tried():
  for data in (
    encoded("PPM"),
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    b"text",
    b"\0",
  ):
    problem = refused(data)
    assert (problem.status, problem.code) == (422, "unreadable_picture")
  assert "nothing was sent" in str(refused(b""))


def test_what_two_formats_could_read_is_decoded_as_what_was_looked_at():
  data = bytearray(encoded("WEBP", (128, 128)))
  data += b"junk" + struct.pack("<I", 2**20) + bytes(2**20)  # a part that decoders pass over
  data[4:8] = struct.pack("<I", len(data) - 8)
  data[2048:2052] = b"PCD_"  # a PhotoCD of 768 x 512 pixels, to whom it asks first
  expected = decode_picture(encoded("WEBP", (128, 128)), 8)
  np.testing.assert_array_equal(decode_upload(bytes(data), 8, 20_000), expected)


def test_the_limit_holds_where_pixels_are_decoded(monkeypatch):
  monkeypatch.setattr(uploads, "picture_size", lambda data, formats: (1, 1))
  monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("it was decoded"))
  problem = refused(encoded("PNG", (100, 100)), 9999)
  assert problem.code == "unreadable_picture" and "more than 9,999 pixels" in str(problem)


def test_a_picture_cut_short_is_refused():
  data = encoded("JPEG", (300, 300))
  assert refused(data[: len(data) // 2]).code == "unreadable_picture"


def test_room_is_taken_and_given_back():
  room = Room(100)
  room.take(60)
  with pytest.raises(Busy):
    room.take(41)
  assert room.taken == 60
  room.give(60)
  room.take(100)


def request_of(parts=(), **headers):
  """A request whose body comes in parts; names of headers have _ for -."""
  parts = iter(parts)

  async def receive():
    part = next(parts, None)
    return {"type": "http.request", "body": part or b"", "more_body": part is not None}

  named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
  return Request({"type": "http", "method": "POST", "headers": named}, receive)


def test_a_length_beside_chunks_says_nothing():
  assert declared_length(request_of(content_length="5")) == 5
  assert declared_length(request_of(content_length="1", transfer_encoding="chunked")) is None
  for other in ({}, {"content_length": "-1"}, {"content_length": "1e3"}):
    assert declared_length(request_of(**other)) is None


@pytest.mark.parametrize("declared", ["1", "90", "99"])
def test_room_is_taken_for_what_came_and_not_for_what_is_declared(declared):
  room, taken = Room(100), []

  def parts():
    for _ in range(3):
      taken.append(room.taken)
      yield bytes(30)

  with Share(room) as share:
    body = asyncio.run(read_body(request_of(parts(), content_length=declared), 100, share=share))
    assert len(body) == 90
    assert taken == [0, 30, 60] and room.taken == 90
  assert room.taken == 0


def test_a_client_without_room_holds_nothing_and_is_heard_out():
  room, taken = Room(100), []
  room.take(50)

  def parts():
    for _ in range(4):
      taken.append(room.taken)
      yield bytes(20)

  with Share(room) as share:
    with pytest.raises(Busy):
      asyncio.run(read_body(request_of(parts()), 1000, share=share))
    assert taken == [50, 70, 90, 50] and room.taken == 50


def test_what_is_too_long_is_not_held():
  room = Room(1000)
  with Share(room) as share:
    with pytest.raises(Problem, match="More than") as caught:
      asyncio.run(read_body(request_of([bytes(60)] * 3), 100, share=share))
    assert caught.value.status == 413 and room.taken == 0
