"""Alignment: a picture laid over its copy is found to agree, and over another is not."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from udh_jax.duplicates.alignment import SIDE, agreement


def scene(seed, size=(320, 240)):
  rng = np.random.default_rng(seed)
  layers = [
    np.asarray(
      Image.fromarray(rng.integers(0, 256, (n, n), dtype=np.uint8)).resize(size, Image.BICUBIC)
    ).astype(float)
    for n in (4, 10, 24)
  ]
  return Image.fromarray(np.mean(layers, axis=0).astype(np.uint8))


def view(image):
  return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.BOX))


def compare(pairs, **options):
  return agreement(
    np.stack([view(a) for a, _ in pairs]), np.stack([view(b) for _, b in pairs]), **options
  )


def test_scales_and_shifts_of_cut_copies_are_found():
  boxes = [(0, 0, 320, 240), (20, 10, 310, 235), (0, 20, 320, 240), (16, 12, 304, 228)]
  pairs = [(scene(seed), scene(seed).crop(box)) for seed, box in enumerate(boxes)]
  found = compare(pairs)
  for i, (left, top, right, bottom) in enumerate(boxes):
    # Where a place of the whole lies in the copy, both counted from -1 to 1.
    scale = 320 / (right - left), 240 / (bottom - top)
    middle = (160 - left) / (right - left) - 0.5, (120 - top) / (bottom - top) - 0.5
    np.testing.assert_allclose(found.scales[i], scale, atol=0.01)
    np.testing.assert_allclose(found.shifts[i], middle, atol=0.01)
  assert (np.asarray(found.whole) > 0.97).all()
  assert (np.asarray(found.blocks) > 0.95).all()
  assert found.overlap[0] == 1
  plain = compare(pairs, align=False)
  assert (np.asarray(plain.whole)[1:] < np.asarray(found.whole)[1:]).all()
  swapped = compare([(b, a) for a, b in pairs])  # the larger laid over the smaller
  np.testing.assert_allclose(swapped.scales * found.scales, 1, atol=0.02)
  assert (np.asarray(swapped.blocks) > 0.95).all()


def test_brightness_letters_and_size_are_no_difference_and_another_picture_is():
  original = scene(7)
  lettered = original.copy()
  draw = ImageDraw.Draw(lettered)
  draw.rectangle((60, 90, 260, 120), fill=255)
  copies = [
    Image.eval(original, lambda x: min(255, int(x * 1.4))),
    lettered,
    original.resize((50, 90)),
  ]
  others = [scene(seed) for seed in range(20, 40)]
  others.append(original.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
  found = compare([(original, other) for other in copies + others])
  assert (np.asarray(found.blocks)[:3] > 0.7).all()
  assert np.asarray(found.blocks)[3:].max() < 0.4


@pytest.mark.parametrize("align", [True, False])
def test_plain_pictures(align):
  grey, black = Image.new("L", (9, 9), 128), Image.new("L", (9, 9))
  pairs = [(grey, black), (grey, grey), (black, scene(1)), (grey, scene(1))]
  found = compare(pairs, align=align)
  np.testing.assert_array_equal(found.detail[:2], 0)
  np.testing.assert_allclose(found.whole[:2], 1, atol=1e-3)
  assert found.whole[2] < 0.5
  assert np.isfinite(np.concatenate([np.ravel(x) for x in found])).all()
