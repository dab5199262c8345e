"""Looks: the signs of low frequencies, of the whole picture and of its middle."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.fft import dctn

from udh_jax.duplicates.looks import NUM_BITS, look_of, mirrored


def smooth(rng, width, height):
  small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
  return Image.fromarray(small).resize((width, height), Image.BICUBIC)


def distance(a, b):
  return int(np.bitwise_count(a ^ b).sum())


def test_bits_are_the_signs_of_the_cosine_transform(rng):
  picture = smooth(rng, 128, 64).convert("L")
  grey = np.asarray(picture, float).reshape(32, 2, 32, 4).mean(axis=(1, 3)).round()
  frequencies = dctn(grey, norm="ortho")
  expected = [frequencies[v, u] > 0.01 for v in range(32) for u in range(32) if 0 < u + v < 14]
  assert len(expected) == NUM_BITS
  np.testing.assert_array_equal(np.unpackbits(look_of(picture)[0]), expected)


@pytest.mark.parametrize("size", [(160, 120), (33, 200), (5, 3), (1, 1)])
def test_the_look_of_a_mirrored_picture_follows(rng, size):
  picture = smooth(rng, *size)
  ours = mirrored(look_of(picture))
  theirs = look_of(ImageOps.mirror(picture))
  # Pixels that two columns share are rounded differently: a few signs near 0 may change.
  if min(size) > 1:
    assert distance(ours[0], theirs[0]) <= 3
    assert distance(ours[1], theirs[1]) <= 6
  np.testing.assert_array_equal(mirrored(ours), look_of(picture))


def test_a_cut_copy_is_near_the_middle_and_others_are_far(rng):
  picture = smooth(rng, 300, 200)
  cut = picture.crop((12, 8, 288, 192))
  assert distance(look_of(cut)[0], look_of(picture)[1]) <= 3
  assert distance(look_of(smooth(rng, 300, 200))[0], look_of(picture)[0]) > 30
  bright = Image.eval(picture, lambda x: x * 0.7 + 30)
  assert distance(look_of(bright)[0], look_of(picture)[0]) <= 6


@pytest.mark.parametrize("colour", [0, 77, 255])
def test_a_picture_of_one_colour_has_no_signs(colour):
  assert not look_of(Image.new("RGB", (50, 40), (colour, colour, colour))).any()
