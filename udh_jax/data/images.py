"""Pictures that are decoded when they are first asked for, and kept while memory allows."""

from collections.abc import Callable

import numpy as np

# Above this many bytes of pixels a data set is decoded anew at each read.
KEEP_BYTES = 2 << 30


class DecodedImages:
  """Random access to pictures behind a decoder, from any number of threads.

  Decoding CIFAR-10's 51,000 PNGs takes 5 s: too long for a start that needs only some of them, and
  too often if every pass repeated it. So each picture is decoded once, at its first read.

  Attributes:
    digest: Tells these pictures from others of the same names, or "".
    contents: Tells them from others of the same names and sizes too, or "".
  """

  digest = ""
  contents = ""

  def __init__(
    self,
    decode: Callable[[int], np.ndarray],
    size: int,
    image_shape: tuple[int, int, int],
    *,
    keep_bytes: int = KEEP_BYTES,
  ):
    """Prepares the memory; decodes nothing.

    Args:
      decode: Function from row to picture of shape ``image_shape``, uint8.
      size: Number of pictures.
      image_shape: ``(h, w, 3)``.
      keep_bytes: Keep pictures if all of them together need at most this much.
    """
    self._decode = decode
    self._size = size
    keep = size * int(np.prod(image_shape)) <= keep_bytes
    # The operating system gives the pages of an empty array out as they are written.
    self._kept = np.empty((size, *image_shape), np.uint8) if keep else None
    self._ready = np.zeros(size, bool)

  def __len__(self) -> int:
    return self._size

  def __getitem__(self, row: int) -> np.ndarray:
    """Picture of shape ``[h, w, 3]``, uint8; not to be written to."""
    if not 0 <= row < self._size:  # so that iteration ends, as with any sequence
      raise IndexError(f"row {row} of {self._size} pictures")
    if self._kept is not None and self._ready[row]:
      return self._kept[row]
    image = self._decode(row)
    if self._kept is not None:
      # Two threads may do this at once: they write the same values, and the flag comes after them.
      self._kept[row] = image
      self._ready[row] = True
    return image


class SomeImages:
  """Some of the pictures of another source, in an order of its own."""

  def __init__(self, images: "DecodedImages | SomeImages", rows: np.ndarray):
    """Keeps both.

    Args:
      images: The other source.
      rows: Its rows that are seen here. Integer array of shape ``[n]``.
    """
    self._images = images
    self._rows = rows

  @property
  def digest(self) -> str:
    """That of the other source; which rows are seen here is not in it."""
    return self._images.digest

  @property
  def contents(self) -> str:
    """Likewise."""
    return self._images.contents

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, row: int) -> np.ndarray:
    """Picture of shape ``[h, w, 3]``, uint8; not to be written to."""
    if not 0 <= row < len(self._rows):
      raise IndexError(f"row {row} of {len(self._rows)} pictures")
    return self._images[self._rows[row]]
