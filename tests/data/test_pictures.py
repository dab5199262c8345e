import concurrent.futures
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import struct
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, PngImagePlugin, features

from udh_jax.data import images as images_module
from udh_jax.data import pictures
from udh_jax.data.images import DecodedImages
from udh_jax.data.loader import read_batches
from udh_jax.data.pictures import (
  _Bounded,
  decode_picture,
  list_pictures,
  picture_size,
  read_picture,
)
from udh_jax.data.readers import folder as folder_reader
from udh_jax.data.registry import data_config, load_dataset
from udh_jax.errors import InputError


def encode(image, format="PNG", **options):
  data = io.BytesIO()
  image.save(data, format, **options)
  return data.getvalue()


def smooth(rng, width, height):
  small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
  return Image.fromarray(small).resize((width, height), Image.BICUBIC)


def folder_dataset(path, name="folder", **fields):
  config = data_config(name)
  config.update({"path": str(path), "image_size": 16, **fields})
  return load_dataset(config)


# Decoding


@pytest.mark.parametrize("shape", [(40, 40), (64, 30), (30, 91), (16, 16), (5, 9), (1, 1)])
def test_the_short_side_is_resized_and_the_middle_kept(rng, shape):
  image = smooth(rng, *shape)
  side = min(shape)
  expected = ImageOps.fit(image, (16, 16), Image.BICUBIC)  # crops the middle, then resizes
  found = decode_picture(encode(image), 16)
  assert found.shape == (16, 16, 3) and found.dtype == np.uint8
  np.testing.assert_allclose(found.astype(int), np.asarray(expected, int), atol=2 + 40 // side)


def test_large_jpegs_are_reduced_without_aliasing(rng):
  stripes = np.zeros((1200, 1600, 3), np.uint8)
  stripes[:, ::2] = 255  # finer than any pixel of the result: it has to come out grey
  found = decode_picture(encode(Image.fromarray(stripes), "JPEG", quality=95), 32)
  np.testing.assert_allclose(found.astype(int), 127, atol=6)
  image = smooth(rng, 1600, 1200)
  expected = ImageOps.fit(image, (32, 32), Image.BOX)
  found = decode_picture(encode(image, "JPEG", quality=95), 32)
  np.testing.assert_allclose(found.astype(int), np.asarray(expected, int), atol=10)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(rng, orientation, format):
  image = smooth(rng, 48, 32)
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {"lossless": True} if format == "WEBP" else {}
  data = encode(image, format, exif=exif, **options)
  upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
  expected = ImageOps.fit(upright.convert("RGB"), (16, 16), Image.BICUBIC)
  found = decode_picture(data, 16)
  np.testing.assert_allclose(found.astype(int), np.asarray(expected, int), atol=3)


@pytest.mark.parametrize(
  ("mode", "format", "tolerance"),
  [
    ("L", "PNG", 0), ("L", "JPEG", 4), ("1", "PNG", 0), ("P", "GIF", 0), ("P", "PNG", 0),
    ("CMYK", "JPEG", 12), ("CMYK", "TIFF", 0), ("RGBA", "PNG", 0), ("LA", "PNG", 0),
    ("RGB", "BMP", 0), ("RGB", "TIFF", 0), ("RGB", "WEBP", 40), ("YCbCr", "TIFF", 2),
  ],
)  # fmt: skip
def test_every_mode_becomes_rgb(rng, mode, format, tolerance):
  image = smooth(rng, 16, 16).convert(mode)
  options = {"quality": 100} if format in ("JPEG", "WEBP") else {}
  found = decode_picture(encode(image, format, **options), 16)
  expected = np.asarray(image.convert("RGB"), int)
  np.testing.assert_allclose(found.astype(int), expected, atol=tolerance)


def test_sixteen_bit_grey_keeps_its_range(rng):
  values = rng.integers(0, 65536, (16, 16)).astype(np.uint16)
  expected = np.repeat(np.round(values / 257)[..., None], 3, axis=2)
  for data in (
    encode(Image.fromarray(values)),
    encode(Image.fromarray(values), "TIFF"),
    encode(Image.fromarray(values.astype(np.int32)), "TIFF"),  # 16-bit values in a wide type
  ):
    np.testing.assert_allclose(decode_picture(data, 16), expected, atol=1)


def grey_tiff(values, bits, photometric=1):
  """A TIFF file of values in rows of their own, high bits first; PIL writes only some depths."""
  rows = ["".join(f"{value:0{bits}b}" for value in row) for row in values]
  data = b"".join(int(row[i : i + 8], 2).to_bytes() for row in rows for i in range(0, len(row), 8))
  height, width = np.shape(values)
  tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 278: height}
  tags |= {273: 8 + 2 + 12 * 9 + 4, 279: len(data)}
  entries = [struct.pack(">HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags)]
  return b"MM\0*" + struct.pack(">IH", 8, len(tags)) + b"".join(entries) + bytes(4) + data


@pytest.mark.parametrize(("bits", "largest"), [(12, 4095), (16, 65535)])
def test_the_range_of_grey_is_that_of_its_depth(rng, bits, largest):
  values = rng.integers(0, largest + 1, (16, 16))
  values[0, :2] = 0, largest
  expected = np.repeat(np.round(values * (255 / largest))[..., None], 3, axis=2)
  data = grey_tiff(values, bits)
  if bits == 12:  # which Pillow reads of this byte order alone
    data = little_endian(data)
  np.testing.assert_allclose(decode_picture(data, 16), expected, atol=1)


def little_endian(data):
  """The same file with the numbers of its header turned."""
  (count,) = struct.unpack_from(">H", data, 8)
  head = b"II*\0" + struct.pack("<IH", 8, count)
  for i in range(count):
    head += struct.pack("<HHII", *struct.unpack_from(">HHII", data, 10 + 12 * i))
  return head + data[len(head) :]


def test_grey_may_begin_at_white(rng):
  values = rng.integers(0, 65536, (16, 16)).astype(np.uint16)
  data = little_endian(grey_tiff(values.byteswap(), 16, photometric=0))
  expected = np.repeat(255 - np.round(values / 257)[..., None], 3, axis=2)
  np.testing.assert_allclose(decode_picture(data, 16), expected, atol=1)


def test_eight_bit_values_in_a_wide_type_keep_their_range(rng):
  values = rng.integers(0, 256, (16, 16)).astype(np.int32)
  found = decode_picture(encode(Image.fromarray(values), "TIFF"), 16)
  np.testing.assert_array_equal(found, np.repeat(values[..., None], 3, axis=2))


def test_a_transparent_grey_of_sixteen_bits_is_white():
  values = np.full((8, 8), 40000, np.uint16)
  values[4:] = 40001
  found = decode_picture(encode(Image.fromarray(values), transparency=40000), 8)
  assert (found[:3] == 255).all() and (found[5:] == 156).all()


def test_floating_point_pixels_are_refused(rng):
  with pytest.raises(ValueError, match="no known range"):
    decode_picture(encode(Image.fromarray(rng.random((8, 8), np.float32)), "TIFF"), 8)


def test_transparent_parts_are_white():
  pixels = np.zeros((8, 8, 4), np.uint8)
  pixels[4:, :, 3] = 255
  image = Image.fromarray(pixels)
  palette = Image.fromarray(np.repeat([[0], [1]], 4, axis=0).repeat(8, axis=1).astype(np.uint8))
  palette = palette.convert("P")
  palette.putpalette([255, 0, 0, 0, 0, 0])
  for data in (
    encode(image),
    encode(image, "WEBP", lossless=True),
    encode(palette, transparency=0),
  ):
    found = decode_picture(data, 8)
    assert (found[:3] > 250).all() and (found[5:] < 5).all()


def test_the_first_frame_of_an_animation_is_taken():
  frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
  found = decode_picture(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), 8)
  assert (found == [255, 0, 0]).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_picture_cut_short_is_unreadable(rng, format):
  data = encode(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), format)
  decode_picture(data, 16)
  for part in (0, 0.01, 0.5, 0.9):
    with pytest.raises(ValueError):
      decode_picture(data[: int(len(data) * part)], 16)


# Damaged metadata, and files of any kind


def photograph(format, **options):
  """A small picture with all the metadata that the format takes, and the same turned upright."""
  pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
  image = Image.fromarray(pixels)
  exif = Image.Exif()
  exif[0x0112], exif[0x010E] = 6, "a description"
  options |= {"exif": exif}
  if format == "PNG":
    options["pnginfo"] = PngImagePlugin.PngInfo()
    options["pnginfo"].add_text("Comment", "written by hand")
    options["pnginfo"].add_itxt("Author", "nobody", zip=True)
    options |= {"dpi": (72, 72), "icc_profile": b"no profile at all"}
  if format == "JPEG":
    options |= {"quality": 95, "comment": b"written by hand", "icc_profile": b"no profile at all"}
  if format == "WEBP":
    options |= {"lossless": True, "icc_profile": b"no profile at all"}
  return encode(image, format, **options)


def metadata_bytes(format, data):
  """Positions of the bytes in a file's metadata, without those that say how long it is."""
  if format == "PNG":
    place = 8
    while place < len(data):
      length, kind = struct.unpack_from(">I4s", data, place)
      if kind[0] & 0x20:
        yield from range(place + 8, place + 12 + length)  # its data and its checksum
      place += 12 + length
  elif format == "JPEG":
    place = 2
    while data[place + 1] != 0xDA:
      length = struct.unpack_from(">H", data, place + 2)[0]
      if data[place + 1] in (0xE1, 0xE2, 0xFE):
        yield from range(place + 4, place + 2 + length)
      place += 2 + length
  else:
    place = 12
    while place < len(data):
      kind, length = struct.unpack_from("<4sI", data, place)
      if kind in (b"EXIF", b"ICCP", b"XMP "):
        yield from range(place + 8, place + 8 + length)
      place += 8 + length + length % 2


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.filterwarnings("ignore")  # Pillow's own, about the damage
def test_damaged_metadata_leaves_the_pixels_rotated_or_not(format):
  data = photograph(format)
  upright = decode_picture(data, 16)
  as_stored = np.rot90(upright)  # orientation 6 is undone by a quarter turn to the right
  places = list(metadata_bytes(format, data))
  assert len(places) > 60
  for place in places:
    for damage in (0xFF, 0x01):
      damaged = bytearray(data)
      damaged[place] ^= damage
      found = decode_picture(bytes(damaged), 16)
      turned = [np.rot90(as_stored, k) for k in range(4)]  # the damage may name another rotation
      turned += [np.fliplr(image) for image in turned]
      assert any((found == image).all() for image in turned), place


@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize(
  "exif", [b"\x00\x08\x00\x02 no tiff header", b"Exif\0\0", b"II*\0" + b"\xff" * 30]
)
@pytest.mark.filterwarnings("ignore")
def test_exif_that_is_none_is_no_damage(rng, format, exif):
  image = smooth(rng, 40, 30)
  options = {"quality": 95} if format == "JPEG" else {"lossless": True}
  plain = decode_picture(encode(image, format, **options), 16)
  np.testing.assert_array_equal(
    decode_picture(encode(image, format, exif=exif, **options), 16), plain
  )


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_a_picture_or_one_line(format, mode):
  if (format, mode) in {("JPEG", "P"), ("JPEG", "RGBA"), ("WEBP", "1")}:
    pytest.skip(f"{format} has no mode {mode}")
  pixels = np.random.default_rng(1).integers(0, 256, (6, 9, 3), dtype=np.uint8)
  data = encode(Image.fromarray(pixels).convert(mode), format)

  @settings(derandomize=True, max_examples=60, deadline=None)
  @given(st.data())
  def attempt(draw):
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):  # nearly always in the header
      damaged[draw.draw(st.integers(0, min(80, len(data) - 1)))] = draw.draw(st.integers(0, 255))
    damaged = damaged[: draw.draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))]
    try:
      found = decode_picture(bytes(damaged), 8)
    except ValueError as error:
      text = str(error)
      assert text and len(text.splitlines()) == 1 and "object at" not in text
    else:
      assert found.shape == (8, 8, 3) and found.dtype == np.uint8

  attempt()


def test_what_is_no_regular_file_is_not_opened(tmp_path):
  os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for a writer, without end
  (tmp_path / "folder.jpg").mkdir()
  (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
  (tmp_path / "device.jpg").symlink_to("/dev/zero")  # never ends either
  with socket.socket(socket.AF_UNIX) as opened:
    opened.bind(str(tmp_path / "socket.jpg"))
  (tmp_path / "empty.jpg").write_bytes(b"")
  for name, words in {
    "pipe": "a named pipe", "folder": "a folder", "loop": "Too many levels", "device": "a device",
    "socket": "a socket", "none": "No such file", "empty": "not a picture of a known format",
  }.items():  # fmt: skip
    with pytest.raises(ValueError, match=words):
      read_picture(tmp_path / f"{name}.jpg", 8)


def test_a_large_picture_is_named_and_a_huge_one_refused(
  tmp_path, caplog, monkeypatch, save_picture
):
  save_picture(tmp_path / "large.png", 40, 30)
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
  monkeypatch.setattr(pictures, "_PIXELS", _Bounded(100))
  with pytest.warns(Image.DecompressionBombWarning):
    for _ in range(2):
      read_picture(tmp_path / "large.png", 8)
  (record,) = caplog.records  # once, not at each reading
  assert "large.png has 40 x 30 pixels" in record.getMessage()
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
  with pytest.raises(ValueError, match="more than 1,000 pixels"):
    read_picture(tmp_path / "large.png", 8)


# Folders


def test_each_real_folder_is_looked_into_once(tmp_path, save_picture):
  for name in ("a/1.png", "b/2.png", "c/deep/3.png"):
    save_picture(tmp_path / "root" / name)
  folder = tmp_path / "root"
  for name, target in {
    "a/to_b": "../b", "a/to_c": "../c", "b/to_a": "../a", "b/to_c": "../c", "c/to_a": "../a",
    "c/deep/up": "../..", "above": "../..", "a/itself": ".", "0_alias": "c",
  }.items():  # fmt: skip
    (folder / name).symlink_to(target)
  assert list_pictures(folder) == ["a/1.png", "b/2.png", "c/deep/3.png"]
  outside = tmp_path / "outside"
  save_picture(outside / "x" / "4.png")
  (outside / "x" / "back").symlink_to(folder / "a")
  (outside / "round").symlink_to(outside)
  for name in ("z", "y"):
    (folder / name).symlink_to(outside)
  (folder / "b" / "inner").symlink_to(outside / "x")
  listed = list_pictures(folder)
  assert len(listed) == 4 and set(listed) > {"a/1.png", "b/2.png", "c/deep/3.png"}
  (tmp_path / "link").symlink_to(folder)
  assert list_pictures(tmp_path / "link") == listed


def test_pictures_are_found_everywhere_and_sorted(tmp_path, save_picture):
  for name in ("b.PNG", "a/z.jpg", "a/b/c.gif", "a.b/x.jpeg", "B.bmp", "ü.webp", "t.tif", "u.tiff"):
    save_picture(tmp_path / name)
  for name in (".hidden.jpg", ".cache/x.jpg", "notes.txt", "a/._x.jpg"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("no picture")
  (tmp_path / "a" / "up").symlink_to(tmp_path)  # would never end
  (tmp_path / "linked").symlink_to(tmp_path / "a.b")
  expected = ["B.bmp", "a.b/x.jpeg", "a/b/c.gif", "a/z.jpg", "b.PNG"]
  assert list_pictures(tmp_path) == [*expected, "t.tif", "u.tiff", "ü.webp"]


def test_every_ending_that_pillow_reads_is_a_picture(tmp_path, save_picture, monkeypatch):
  formats = {"a.jfif": "JPEG", "b.JPE": "JPEG"}
  for ending, feature, format in ((".avif", "avif", "AVIF"), (".jp2", "jpg_2000", "JPEG2000")):
    if features.check(feature):
      formats[f"c{ending}"] = format
  for name, format in formats.items():
    save_picture(tmp_path / name, format=format)
  assert list_pictures(tmp_path) == sorted(formats)
  assert folder_dataset(tmp_path).names == sorted(formats)
  monkeypatch.setattr(features, "check", lambda name: False)
  pictures.picture_endings.cache_clear()
  try:
    assert list_pictures(tmp_path) == ["a.jfif", "b.JPE"]
  finally:
    pictures.picture_endings.cache_clear()


def test_files_of_other_kinds_are_counted(tmp_path, save_picture):
  for name in ("a/1.png", "b/2.png"):
    save_picture(tmp_path / name)
  for name in ("a/1.HEIC", "b/2.heic", "b/x\n.cr3", "b/plain"):
    (tmp_path / name).write_bytes(b"")
  beside = ("a/1.txt", "a/1.json", "t.csv", "Thumbs.db", ".hidden.heic", ".trash/1.heic")
  for name in beside:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"")
  line = "4 files of other kinds were passed over (.heic 2, no ending 1, .cr3 1)."
  assert line in "".join(folder_dataset(tmp_path).notes)
  (tmp_path / "only").mkdir()
  (tmp_path / "only" / "1.heic").write_bytes(b"")
  with pytest.raises(InputError, match=r"1 file of another kind was passed over \(\.heic 1\)"):
    folder_dataset(tmp_path / "only")
  (tmp_path / "b" / "plain").unlink()
  (tmp_path / "b" / "2.heic").unlink()
  for kind in "cdef":
    (tmp_path / f"1.{kind}").write_bytes(b"")
  assert "and 1 more kinds" in "".join(folder_dataset(tmp_path).notes)


def test_a_subfolder_that_cannot_be_listed_is_an_error(tmp_path, save_picture, monkeypatch):
  for name in ("a/1.jpg", "b/2.jpg"):
    save_picture(tmp_path / name)
  real = os.scandir

  def scandir(path):
    if str(path).endswith("b"):
      raise PermissionError(13, "Permission denied", str(path))
    return real(path)

  monkeypatch.setattr("os.scandir", scandir)
  with pytest.raises(InputError, match=r"/b cannot be listed \(Permission denied\)"):
    list_pictures(tmp_path)


def test_a_flat_folder_has_no_labels_and_no_queries(tmp_path, save_picture):
  pictures = [save_picture(tmp_path / f"{i}.png", 16, 16) for i in range(5)]
  dataset = folder_dataset(tmp_path)
  assert dataset.labels is None and list(dataset.class_names) == []
  assert [len(part) for part in dataset.splits] == [5, 5, 0]
  assert dataset.names == [f"{i}.png" for i in range(5)] and dataset.image_shape == (16, 16, 3)
  for row, picture in enumerate(pictures):
    assert (dataset.images[row] == np.asarray(picture)).all()


def test_subfolders_are_classes(tmp_path, save_picture):
  for name, count in (("dog", 12), ("cat", 8)):
    for i in range(count):
      save_picture(tmp_path / name / ("deep" if i % 2 else ".") / f"{i}.jpg")
  dataset = folder_dataset(tmp_path, num_queries=6)
  assert dataset.class_names == ["cat", "dog"]
  assert dataset.labels.tolist() == [0] * 8 + [1] * 12
  assert all(
    name.startswith(dataset.class_names[label])
    for name, label in zip(dataset.names, dataset.labels, strict=True)
  )
  assert np.bincount(dataset.labels[dataset.splits.query]).tolist() == [3, 3]
  most = folder_dataset(tmp_path)  # asks for more than half of each class
  assert np.bincount(most.labels[most.splits.query]).tolist() == [4, 6]
  assert not most.notes
  save_picture(tmp_path / "loose.jpg")
  loose = folder_dataset(tmp_path)
  assert loose.labels is None
  assert "1 picture lies in no subfolder (the first is loose.jpg), so there" in "".join(loose.notes)


def test_one_subfolder_is_no_class(tmp_path, save_picture):
  for i in range(3):
    save_picture(tmp_path / "images" / f"{i}.jpg")
  dataset = folder_dataset(tmp_path)
  assert dataset.labels is None and not dataset.notes


def test_parts_of_a_collection_as_classes_are_said(tmp_path, save_picture):
  for part in ("Train", "test"):
    for kind in ("cat", "dog"):
      save_picture(tmp_path / part / kind / "1.jpg")
  dataset = folder_dataset(tmp_path, num_queries=1)
  assert dataset.class_names == ["Train", "test"]
  assert "the labels are Train, test, which look like parts" in "".join(dataset.notes)


def test_a_picture_that_vanishes_while_they_are_opened(tmp_path, save_picture, monkeypatch):
  for i in range(3):
    save_picture(tmp_path / f"{i}.jpg", 40, 30)
  opened = folder_reader.open_pictures

  def then_remove(*names):
    def open_pictures(*args, **options):
      found = opened(*args, **options)
      for name in names:
        (tmp_path / name).unlink()
      return found

    monkeypatch.setattr(folder_reader, "open_pictures", open_pictures)

  options = {"image_size": 16, "on_unreadable": "skip", "progress": lambda done, total: None}
  then_remove("1.jpg")
  assert folder_reader.read_folder(str(tmp_path), **options).picture_side == 30
  then_remove("0.jpg", "2.jpg")
  monkeypatch.setattr(folder_reader, "list_pictures", lambda *_: ["0.jpg", "2.jpg"])
  with pytest.raises(InputError, match=r"None of the pictures .* can be read any more .*No such"):
    folder_reader.read_folder(str(tmp_path), **options)


def damage(path):
  path.write_bytes(path.read_bytes()[:-40])


def test_unreadable_files_are_left_out_with_one_warning(tmp_path, save_picture, caplog):
  for i in range(6):
    save_picture(tmp_path / f"{i}.jpg")
  damage(tmp_path / "2.jpg")
  (tmp_path / "4.jpg").write_text("no picture")
  (tmp_path / "5.jpg").unlink()
  (tmp_path / "5.jpg").symlink_to(tmp_path / "gone.jpg")
  with caplog.at_level(logging.WARNING):
    dataset = folder_dataset(tmp_path)
  assert dataset.names == ["0.jpg", "1.jpg", "3.jpg"] and len(dataset.images) == 3
  assert (dataset.images[2] == decode_picture((tmp_path / "3.jpg").read_bytes(), 16)).all()
  (record,) = caplog.records
  message = record.getMessage()
  assert message.startswith("3 of 6 pictures are left out")
  assert all(f"{i}.jpg" in message for i in (2, 4, 5))


def test_unreadable_files_are_refused_where_the_config_says_so(tmp_path, save_picture):
  for i in range(3):
    save_picture(tmp_path / f"{i}.jpg")
  folder_dataset(tmp_path, on_unreadable="refuse")
  damage(tmp_path / "1.jpg")
  with pytest.raises(InputError, match=r"1\.jpg cannot be read .*truncated"):
    folder_dataset(tmp_path, on_unreadable="refuse")


def test_a_second_start_finds_the_same_rows_without_decoding(
  tmp_path, save_picture, cache, monkeypatch
):
  for i in range(5):
    save_picture(tmp_path / f"{i}.jpg")
  damage(tmp_path / "3.jpg")
  first = folder_dataset(tmp_path)
  decoded = []
  real = decode_picture

  def counting(data, size):
    decoded.append(data)
    return real(data, size)

  monkeypatch.setattr("udh_jax.data.pictures.decode_picture", counting)
  second = folder_dataset(tmp_path)
  assert second.digest == first.digest and len(decoded) == 1  # the damaged one, again
  save_picture(tmp_path / "3.jpg")
  damage(tmp_path / "0.jpg")
  third = folder_dataset(tmp_path)
  assert third.names == ["1.jpg", "2.jpg", "3.jpg", "4.jpg"] and third.digest != first.digest
  (file,) = (cache / "udh_jax").iterdir()
  for content in ("{", "[]", "{}", json.dumps({"files": 3})):
    file.write_text(content)
    assert folder_dataset(tmp_path).digest == third.digest


def test_a_cache_that_cannot_be_written_is_no_hindrance(tmp_path, save_picture, monkeypatch):
  for i in range(2):
    save_picture(tmp_path / "pictures" / f"{i}.jpg")
  (tmp_path / "file").write_text("")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
  assert len(folder_dataset(tmp_path / "pictures").images) == 2


def test_no_folder_no_pictures_and_one_picture_are_clear_errors(tmp_path, save_picture):
  with pytest.raises(InputError, match=r"set data\.path"):
    folder_dataset("")
  with pytest.raises(InputError, match="nowhere is not a folder"):
    folder_dataset(tmp_path / "nowhere")
  with pytest.raises(InputError, match=r"holds no pictures: no file in it ends in \.jpg"):
    folder_dataset(tmp_path)
  save_picture(tmp_path / "a.jpg")
  with pytest.raises(InputError, match="one picture"):
    folder_dataset(tmp_path)
  damage(tmp_path / "a.jpg")
  with pytest.raises(InputError, match="None of the 1 pictures"):
    folder_dataset(tmp_path)


def test_a_file_lost_after_the_start_is_named_by_the_reader(tmp_path, save_picture):
  for i in range(4):
    save_picture(tmp_path / f"{i}.jpg")
  folder_dataset(tmp_path)
  dataset = folder_dataset(tmp_path)  # noted as sound: nothing is decoded yet
  os.remove(tmp_path / "2.jpg")
  with pytest.raises(InputError, match=r"2\.jpg cannot be read"):
    list(read_batches(dataset, [np.arange(4)]))


def test_pictures_are_decoded_once_while_they_fit(monkeypatch):
  calls = []

  def decode(row):
    calls.append(row)
    return np.full((2, 2, 3), row, np.uint8)

  for keep_bytes, expected in ((36, 3), (35, 9)):
    calls.clear()
    images = DecodedImages(decode, 3, (2, 2, 3), keep_bytes=keep_bytes)
    for _ in range(3):
      assert [int(image[0, 0, 0]) for image in images] == [0, 1, 2]
    assert len(calls) == expected
  assert images_module.KEEP_BYTES > 1 << 30


# MIRFLICKR-25K


@pytest.fixture
def mirflickr(tmp_path, save_picture):
  for i in range(1, 31):
    save_picture(tmp_path / "mirflickr" / f"im{i}.jpg")
  notes = tmp_path / "annotations_v080"
  notes.mkdir()
  (notes / "sea.txt").write_text("".join(f"{i}\n" for i in range(1, 21)))
  (notes / "dog.txt").write_text("3\n10\n25\n9999\n")
  (notes / "dog_r1.txt").write_text("1\n")
  (notes / "README.txt").write_text("about the annotations")
  return tmp_path


@pytest.mark.parametrize("images", ["mirflickr", "images", "."])
@pytest.mark.parametrize("notes", ["annotations_v080", "mirflickr25k_annotations_v080"])
def test_mirflickr_in_its_layouts(mirflickr, images, notes):
  if images == ".":
    for file in (mirflickr / "mirflickr").iterdir():
      shutil.move(file, mirflickr)
  else:
    (mirflickr / "mirflickr").rename(mirflickr / images)
  (mirflickr / "annotations_v080").rename(mirflickr / notes)
  dataset = folder_dataset(mirflickr, "flickr25k", num_queries=8, num_train=10)
  assert dataset.names == [f"im{i}.jpg" for i in range(1, 31)]
  assert dataset.class_names == ["dog", "sea"]
  assert (np.flatnonzero(dataset.labels[:, 0]) + 1).tolist() == [3, 10, 25]
  assert (np.flatnonzero(dataset.labels[:, 1]) + 1).tolist() == list(range(1, 21))
  assert [len(part) for part in dataset.splits] == [10, 22, 8]
  assert dataset.labels[dataset.splits.query].any(axis=1).all()


def test_labels_stay_with_their_pictures_when_one_is_left_out(mirflickr):
  damage(mirflickr / "mirflickr" / "im2.jpg")
  dataset = folder_dataset(mirflickr, "flickr25k", num_queries=8, num_train=10)
  assert len(dataset.images) == 29
  assert [dataset.names[row] for row in np.flatnonzero(dataset.labels[:, 0])] == [
    "im3.jpg",
    "im10.jpg",
    "im25.jpg",
  ]


def test_what_mirflickr_lacks_is_said(mirflickr, tmp_path):
  fields = {"name": "flickr25k", "num_queries": 8, "num_train": 10}
  for path, message in (("", "set data.path"), (tmp_path / "nowhere", "is not a folder")):
    with pytest.raises(InputError, match=message):
      folder_dataset(path, **fields)
  (mirflickr / "annotations_v080" / "dog.txt").write_text("im3.jpg\n")
  with pytest.raises(InputError, match=r"dog\.txt has to hold one image number a line"):
    folder_dataset(mirflickr, **fields)
  shutil.rmtree(mirflickr / "annotations_v080")
  with pytest.raises(InputError, match=r"holds no annotations_v080/\*\.txt; unpack"):
    folder_dataset(mirflickr, **fields)
  shutil.rmtree(mirflickr / "mirflickr")
  with pytest.raises(InputError, match=r"holds no pictures im1\.jpg"):
    folder_dataset(mirflickr, **fields)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.filterwarnings("ignore")  # Pillow's own, about the damage
def test_damaged_metadata_does_not_hide_the_size(format):
  data = photograph(format)
  refused = 0
  for place in metadata_bytes(format, data):
    damaged = bytearray(data)
    damaged[place] ^= 0xFF
    try:
      Image.open(io.BytesIO(damaged)).close()
    except Exception:
      refused += 1
    assert picture_size(bytes(damaged)) == (24, 16)
  assert refused or format != "PNG"
  with pytest.raises(Exception, match="cannot identify"):
    picture_size(b"no picture")


@pytest.mark.filterwarnings("ignore")
def test_a_folder_tells_sizes_where_metadata_is_damaged_and_contents_by_their_bytes(tmp_path):
  damaged = bytearray(photograph("PNG"))
  damaged[damaged.index(b"tEXt") + 20] ^= 0xFF
  with pytest.raises(Exception, match="cannot identify"):
    Image.open(io.BytesIO(damaged))
  for name in ("a.png", "b.png"):
    (tmp_path / name).write_bytes(damaged)
  dataset = folder_dataset(tmp_path)
  assert dataset.picture_side == 16
  shutil.copytree(tmp_path, tmp_path.with_name("copy"))
  assert folder_dataset(tmp_path.with_name("copy")).images_digest == dataset.images_digest != ""
  (tmp_path / "a.png").write_bytes(photograph("JPEG"))
  changed = folder_dataset(tmp_path)
  assert changed.digest == dataset.digest and changed.images_digest != dataset.images_digest


def test_pictures_changed_in_place_are_told_by_their_contents(tmp_path, save_picture, cache):
  folder = tmp_path / "pictures"
  for i in range(3):
    save_picture(folder / f"{i}.bmp")
  first = folder_dataset(folder)
  assert folder_dataset(folder).contents_digest == first.contents_digest != ""
  shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)  # with new times
  assert folder_dataset(tmp_path / "copy").contents_digest == first.contents_digest
  time = (folder / "1.bmp").stat().st_mtime_ns
  save_picture(folder / "1.bmp")
  os.utime(folder / "1.bmp", ns=(time + 10**9, time + 10**9))
  second = folder_dataset(folder)
  assert second.images_digest == first.images_digest  # which earlier versions noted
  assert second.contents_digest != first.contents_digest
  (folder / "0.bmp").write_bytes(b"no picture")
  assert folder_dataset(folder).contents_digest not in ("", second.contents_digest)


def test_notes_of_an_earlier_version_are_read_again_once(
  tmp_path, save_picture, cache, monkeypatch
):
  for i in range(3):
    save_picture(tmp_path / f"{i}.bmp")
  first = folder_dataset(tmp_path)
  (file,) = (cache / "udh_jax").iterdir()
  noted = json.loads(file.read_text())
  size, time, digest = noted["files"]["1.bmp"]
  assert digest == hashlib.blake2b((tmp_path / "1.bmp").read_bytes(), digest_size=16).hexdigest()
  noted["files"] |= {"1.bmp": [size, time], "2.bmp": 3}
  file.write_text(json.dumps(noted))
  read, real = [], read_picture
  monkeypatch.setattr(
    pictures, "read_picture", lambda path, size: read.append(path.name) or real(path, size)
  )
  for _ in range(2):
    again = folder_dataset(tmp_path)
    assert sorted(read) == ["1.bmp", "2.bmp"]
    assert again.contents_digest == first.contents_digest


def test_a_picture_that_is_gone_before_its_contents_are_noted_is_left_out(
  tmp_path, save_picture, monkeypatch, caplog
):
  for i in range(3):
    save_picture(tmp_path / f"{i}.bmp")
  real = read_picture

  def read(path, size):
    picture = real(path, size)
    if path.name == "1.bmp":
      path.unlink()
    return picture

  monkeypatch.setattr(pictures, "read_picture", read)
  assert folder_dataset(tmp_path).names == ["0.bmp", "2.bmp"]
  assert "1.bmp cannot be read (No such file" in caplog.text


def test_so_many_at_once_or_one_that_is_more():
  """Threads never hold more than the bound, and one that wants more than it comes through alone."""
  bounded, held, most = _Bounded(10), [], []
  lock = threading.Lock()

  def take(count):
    with bounded.held(count):
      with lock:
        held.append(count)
        most.append(sum(held))
        alone = len(held) == 1
      time.sleep(0.001)
      with lock:
        held.remove(count)
    return alone or count <= 10

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    found = list(pool.map(take, [3, 4, 25, 5, 1, 10, 25, 2] * 10))
  assert all(found) and held == []
  assert max(most) == 25 and any(10 >= m > 5 for m in most)
