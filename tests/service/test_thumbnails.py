"""Small copies: made once, kept in bounded room, made anew when the picture changes."""

import asyncio
import io
import os

import numpy as np
import pytest
from PIL import Image

from udh_jax.data.pictures import decode_picture
from udh_jax.service import thumbnails as module
from udh_jax.service.files import open_picture
from udh_jax.service.problems import Problem
from udh_jax.service.thumbnails import SIDE, Cache, Thumbnails, make_thumbnail


@pytest.fixture
def thumbnails(tmp_path):
  found = Thumbnails(Cache(tmp_path / "kept", 2**20), threads=2)
  yield found
  found.stop()


def get(thumbnails, folder, *names):
  async def run():
    return await asyncio.gather(*[thumbnails.get(n, open_picture(folder, n)) for n in names])

  return asyncio.run(run())


def test_is_the_square_that_the_encoder_sees(rng):
  data = io.BytesIO()
  picture = Image.fromarray(rng.integers(0, 256, (3, 5, 3), np.uint8)).resize((500, 300))
  picture.save(data, "PNG")
  small = Image.open(io.BytesIO(make_thumbnail(data.getvalue())))
  assert small.size == (SIDE, SIDE) and small.format == "WEBP"
  expected = decode_picture(data.getvalue(), SIDE).astype(int)
  assert np.abs(np.asarray(small.convert("RGB")).astype(int) - expected).mean() < 4


def test_few_pixels_are_kept_as_they_are(pictures):
  path = pictures / "group 0" / "0.png"
  small = Image.open(io.BytesIO(make_thumbnail(path.read_bytes())))
  assert small.size == (30, 30)
  np.testing.assert_array_equal(small.convert("RGB"), decode_picture(path.read_bytes(), 30))


def test_is_made_once_and_anew_when_the_picture_changes(thumbnails, pictures):
  name = "group 0/0.png"
  (first,) = get(thumbnails, pictures, name)
  (again,) = get(thumbnails, pictures, name)
  assert first.made and not again.made
  assert (again.data, again.tag) == (first.data, first.tag)
  Image.new("RGB", (50, 50), "red").save(pictures / name)
  (changed,) = get(thumbnails, pictures, name)
  assert changed.made and changed.tag != first.tag and changed.data != first.data


def test_all_that_ask_at_once_share_one(thumbnails, pictures, monkeypatch):
  made = []
  monkeypatch.setattr(module, "make_thumbnail", lambda data: made.append(1) or make_thumbnail(data))
  found = get(thumbnails, pictures, *["group 0/0.png"] * 20, "group 1/1.jpg")
  assert len(made) == 2
  assert len({thumbnail.data for thumbnail in found}) == 2


def test_what_cannot_be_decoded_is_said(thumbnails, pictures):
  whole = (pictures / "group 0" / "0.png").read_bytes()
  (pictures / "group 0" / "0.png").write_bytes(whole[: len(whole) // 2])
  with pytest.raises(Problem, match="cannot be decoded"):
    get(thumbnails, pictures, "group 0/0.png")


def test_the_cache_stays_within_its_bound_and_keeps_what_was_used_last(tmp_path):
  cache = Cache(tmp_path / "kept", 10_000)
  keys = [f"{i:064x}"[::-1] for i in range(30)]
  for i, key in enumerate(keys):
    cache.put(key, bytes(1000))
    for path in tmp_path.glob(f"kept/*/{key[2:]}*"):
      os.utime(path, (i, i))
    assert cache.get(keys[0]) is not None  # used all the time
    held = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.webp"))
    assert held <= 10_000 and cache.bytes == held
  assert cache.get(keys[-1]) is not None and cache.get(keys[1]) is None


def test_what_an_earlier_server_has_kept_counts(tmp_path):
  Cache(tmp_path / "kept", 10_000).put("ab" + "0" * 62, bytes(9000))
  again = Cache(tmp_path / "kept", 10_000)
  assert again.bytes == 9000
  again.put("cd" + "0" * 62, bytes(9000))
  assert again.get("ab" + "0" * 62) is None and again.get("cd" + "0" * 62) is not None


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path, pictures, caplog):
  (tmp_path / "file").write_text("no folder")
  thumbnails = Thumbnails(Cache(tmp_path / "file" / "kept", 2**20), threads=1)
  found = get(thumbnails, pictures, "group 0/0.png", "group 1/1.jpg")
  thumbnails.stop()
  assert all(thumbnail.made for thumbnail in found)
  assert len([record for record in caplog.records if "cannot be kept" in record.message]) == 1


def test_what_is_no_picture_is_said_without_python(thumbnails, pictures):
  (pictures / "group 0" / "0.png").write_bytes(b"\xff\xd8\xffjunk")
  with pytest.raises(Problem, match=r"no.* picture of a known format") as caught:
    get(thumbnails, pictures, "group 0/0.png")
  assert "0x" not in str(caught.value)


def test_servers_that_share_a_folder_keep_its_bound(tmp_path):
  first, second = (Cache(tmp_path / "kept", 10_000) for _ in range(2))
  for i in range(40):
    (first, second)[i % 2].put(f"{i:064x}"[::-1], bytes(400))
  held = sum(path.stat().st_size for path in (tmp_path / "kept").rglob("*.webp"))
  assert held <= 11_000  # and what each has put since it looked
