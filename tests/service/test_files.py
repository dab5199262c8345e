"""Only files of the index are opened, whatever stands in their place."""

import errno
import os
import pathlib

import pytest
from PIL import Image, features

from udh_jax.data.pictures import read_picture
from udh_jax.service import files
from udh_jax.service.files import kind_of, open_picture
from udh_jax.service.problems import Problem
from udh_jax.service.thumbnails import make_thumbnail


@pytest.fixture
def secret(tmp_path):
  path = tmp_path / "secret" / "private.png"
  path.parent.mkdir()
  path.write_bytes(b"\x89PNG\r\n\x1a\n private")
  return path


def refused(folder, name, **options):
  with pytest.raises(Problem) as caught:
    open_picture(folder, name, **options)
  assert caught.value.status == 404
  return str(caught.value)


def test_a_picture_is_opened_with_its_kind(pictures):
  opened = open_picture(pictures, "group 0/0.png")
  with opened.file:
    assert opened.file.read() == (pictures / "group 0" / "0.png").read_bytes()
  assert opened.kind == "image/png"
  with open_picture(pictures, "group 1/1.jpg").file:
    pass


@pytest.mark.parametrize(
  "name",
  ["../secret/private.png", "group 0/../../secret/private.png", "./group 0/0.png", "",
   "group 0//0.png", "group 0/0.png/", "group 0/0.png\0", "/etc/hostname"],
)  # fmt: skip
@pytest.mark.parametrize("follow_links", [False, True])
def test_names_that_leave_the_folder_are_refused(pictures, secret, name, follow_links):
  assert "not a name within the folder" in refused(pictures, name, follow_links=follow_links)


def test_an_absolute_name_is_refused(pictures, secret):
  assert "not a name within the folder" in refused(pictures, str(secret))


def test_a_file_that_became_a_link_is_refused(pictures, secret):
  picture = pictures / "group 0" / "0.png"
  picture.unlink()
  picture.symlink_to(secret)
  assert "is a link" in refused(pictures, "group 0/0.png")
  with open_picture(pictures, "group 0/0.png", follow_links=True).file as file:
    assert file.read() == secret.read_bytes()


def test_a_folder_that_became_a_link_is_refused(pictures, secret):
  (pictures / "group 0").rename(pictures.parent / "elsewhere")
  (pictures / "group 0").symlink_to(secret.parent)
  assert "lies behind one" in refused(pictures, "group 0/private.png")
  (pictures / "group 0").unlink()
  (pictures / "group 0").symlink_to(pictures.parent / "elsewhere")
  assert "lies behind one" in refused(pictures, "group 0/0.png")


def test_a_link_to_nothing_is_refused(pictures):
  (pictures / "broken.png").symlink_to("nowhere.png")
  assert "is a link" in refused(pictures, "broken.png")
  assert "no longer in the folder" in refused(pictures, "broken.png", follow_links=True)


def test_the_folder_itself_may_be_reached_by_a_link(pictures, tmp_path):
  (tmp_path / "link").symlink_to(pictures)
  with open_picture(tmp_path / "link", "group 0/0.png").file as file:
    assert file.read() == (pictures / "group 0" / "0.png").read_bytes()


def test_what_is_no_picture_is_refused(pictures):
  (pictures / "group 0" / "0.png").write_text("<script>alert(1)</script>")
  assert "not a picture any more" in refused(pictures, "group 0/0.png")
  (pictures / "empty.png").touch()
  assert "not a picture any more" in refused(pictures, "empty.png")
  assert "not a regular file" in refused(pictures, "group 0")
  assert "no longer in the folder" in refused(pictures, "group 0/none.png")
  assert "no longer in the folder" in refused(pictures, "group 0/0.png/none.png")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_not_waited_for(pictures):
  os.mkfifo(pictures / "pipe.png")
  assert "not a regular file" in refused(pictures, "pipe.png")


def test_a_folder_that_is_gone_is_said(pictures):
  pictures.rename(pictures.parent / "moved")
  assert "folder of the pictures is gone" in refused(pictures, "group 0/0.png")
  assert "not known where the pictures are" in refused(None, "group 0/0.png")


def test_no_handle_stays_open(pictures):
  handles = pathlib.Path("/proc/self/fd")
  if not handles.is_dir():
    pytest.skip("this system does not list open files")
  before = len(list(handles.iterdir()))
  (pictures / "text.png").write_text("no picture")
  for name in ("text.png", "group 0", "group 0/none", "../x") * 5:
    refused(pictures, name)
  assert len(list(handles.iterdir())) == before


def test_kinds_follow_the_contents():
  assert kind_of(b"\xff\xd8\xff\xe0") == "image/jpeg"
  assert kind_of(b"RIFF\x10\0\0\0WEBPVP8 ") == "image/webp"
  assert kind_of(b"RIFF\x10\0\0\0WAVEfmt ") is None
  assert kind_of(b"<svg xmlns=") is None
  assert kind_of(b"P6 of the text") is not None and kind_of(b"P9 of the text") is None


@pytest.mark.parametrize(
  ("form", "options", "kind"),
  [
    ("AVIF", {}, "avif"), ("JPEG2000", {}, "jp2"), ("JPEG2000", {"no_jp2": True}, "jp2"),
    ("PPM", {}, "x-portable-anymap"), ("ICO", {}, "x-icon"), ("TIFF", {"big_tiff": True}, "tiff"),
    ("JPEG", {}, "jpeg"), ("PNG", {}, "png"), ("WEBP", {}, "webp"), ("GIF", {}, "gif"),
    ("BMP", {}, "bmp"), ("TIFF", {}, "tiff"),
  ],
)  # fmt: skip
def test_what_was_encoded_is_served(pictures, form, options, kind):
  """By its contents, as it was encoded, whatever its name says."""
  if form == "AVIF" and not features.check("avif"):
    pytest.skip("this Pillow writes no AVIF")
  Image.new("RGB", (32, 32), "teal").save(pictures / "a.png", form, **options)
  assert read_picture(pictures / "a.png", 8).shape == (8, 8, 3)
  opened = open_picture(pictures, "a.png")
  with opened.file as file:
    assert opened.kind == f"image/{kind}"
    assert make_thumbnail(file.read())[:4] == b"RIFF"


@pytest.mark.parametrize(
  ("number", "status"), [(errno.EMFILE, 503), (errno.EIO, 503), (errno.EACCES, 404)]
)
@pytest.mark.parametrize("failing", ["open", "read"])
def test_what_passes_is_not_said_to_be_gone(pictures, monkeypatch, number, status, failing):
  def fail(*_, **__):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(files, "_open_plain" if failing == "open" else "kind_of", fail)
  with pytest.raises(Problem, match=os.strerror(number)) as caught:
    open_picture(pictures, "group 0/0.png")
  assert caught.value.status == status
