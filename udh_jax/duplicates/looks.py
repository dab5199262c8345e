"""What a picture looks like in few bits: equal for copies of it, whatever it shows."""

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
  from PIL import Image

SIDE = 32  # of the grey picture that bits are taken of
INNER = 0.92  # share of each side that the second code sees
NUM_BITS = 104
_ORDER = 14  # frequencies with u + v < 14, without the mean: 104


def look_of(picture: "Image.Image") -> np.ndarray:
  """Two codes of a whole picture: of all of it, and of its middle.

  A bit is the sign of a low frequency of the cosine transform of the grey picture, brought to 32 by
  32 pixels: as the "perceptual hash", with signs in place of a median, so that the code of the
  mirrored picture follows from that of the picture (`mirrored`). The second code is that of the
  middle 92 hundredths of both sides: a copy that has lost a little of its border is nearer to it
  than to the first.

  Args:
    picture: From Pillow, in any mode.

  Returns:
    Packed codes, uint8 array of shape ``[2, 13]``.

  References:
    Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, section 3.2,
    for the transform; signs, the inner code and the number of bits are our own.
  """
  from PIL import Image

  grey = picture if picture.mode == "L" else picture.convert("L")
  width, height = grey.size
  edge = (1 - INNER) / 2
  inner = (width * edge, height * edge, width * (1 - edge), height * (1 - edge))
  views = [
    np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX, box=box), np.float32)
    for box in ((0, 0, width, height), inner)
  ]
  cosines, chosen = _cosines(), _chosen()
  frequencies = cosines @ np.stack(views) @ cosines.T  # [2, v, u]
  # Of a picture of one colour every frequency is rounding error: those are not signs.
  return np.packbits(frequencies[:, chosen] > 1e-2, axis=1)


def mirrored(looks: np.ndarray) -> np.ndarray:
  """Codes of the pictures mirrored left to right; every odd horizontal frequency changes its sign.

  Args:
    looks: uint8 array of shape ``[..., 13]``.
  """
  across = np.arange(SIDE)[None, :] % 2 == 1
  return looks ^ np.packbits(np.broadcast_to(across, (SIDE, SIDE))[_chosen()])


@functools.cache
def _chosen() -> np.ndarray:
  v, u = np.mgrid[:SIDE, :SIDE]
  return (u + v < _ORDER) & (u + v > 0)


@functools.cache
def _cosines() -> np.ndarray:
  """The orthonormal cosine transform of `SIDE` values, as a matrix."""
  k, x = np.mgrid[:SIDE, :SIDE]
  matrix = np.sqrt(2 / SIDE) * np.cos(np.pi * k * (2 * x + 1) / (2 * SIDE))
  matrix[0] /= np.sqrt(2)
  return matrix.astype(np.float32)
