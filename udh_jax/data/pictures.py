"""Picture files of any kind and size, brought to one size; and which of them can be read at all."""

import concurrent.futures
import hashlib
import io
import json
import logging
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from udh_jax.data.images import DecodedImages, SomeImages
from udh_jax.errors import InputError, require
from udh_jax.files import write_text

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

# EXIF orientation to what undoes it, by the names of PIL.Image.Transpose.
_UPRIGHT = {
  2: "FLIP_LEFT_RIGHT",
  3: "ROTATE_180",
  4: "FLIP_TOP_BOTTOM",
  5: "TRANSPOSE",
  6: "ROTATE_270",
  7: "TRANSVERSE",
  8: "ROTATE_90",
}
_EXIF_ORIENTATION = 0x0112


class Pictures(NamedTuple):
  """The readable ones of some files.

  Attributes:
    images: Random access to n pictures of shape ``[size, size, 3]``, uint8.
    names: Path of each, relative to the folder, with forward slashes.
    kept: Position of each in the list of files. Array of shape ``[n]``, int64.
  """

  images: DecodedImages | SomeImages
  names: list[str]
  kept: np.ndarray


def decode_picture(
  data: bytes, size: int, *, whole: Callable[[Any, int, int], None] | None = None
) -> np.ndarray:
  """Decodes a picture to a square: the short side becomes ``size``, of the long one the middle.

  EXIF rotation is undone. Grey, palette, CMYK and 16-bit pictures become RGB, transparent parts
  white; of an animation the first frame is taken.

  Args:
    data: Contents of a picture file.
    size: Side of the square.
    whole: Called with the whole picture, upright, in RGB, perhaps at a fraction of its size (then
      with a short side of 64 pixels or more), and its full width and height.

  Returns:
    Array of shape ``[size, size, 3]``, uint8.

  Raises:
    ValueError: If it is no picture, is cut short or damaged, or its values have no known range.
  """
  from PIL import Image

  try:
    with Image.open(io.BytesIO(data)) as image:
      # A JPEG can be decoded at an eighth, a quarter or half of its size, at a fraction of the
      # cost; twice the wanted side is kept, so that the last step still averages.
      full = image.size
      least = 2 * max(size, 32)
      image.draft("RGB", (least, least))
      image.load()
      full = image.size if image.format == "TIFF" else full  # which load has turned
      orientation = image.getexif().get(_EXIF_ORIENTATION)  # after load, which turns a TIFF itself
      if image.mode != "RGB":
        image = _to_rgb(image)
      width, height = image.size
      side = min(width, height)
      left, top = (width - side) / 2, (height - side) / 2
      square = image.resize(
        (size, size),
        Image.Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=3.0,
      )
      turn = Image.Transpose[_UPRIGHT[orientation]] if orientation in _UPRIGHT else None
      if whole is not None:
        upright = image if turn is None else image.transpose(turn)
        whole(upright, *(full if orientation not in (5, 6, 7, 8) else full[::-1]))
      # The middle square stays where it is when it is turned.
      return np.asarray(square if turn is None else square.transpose(turn))
  except MemoryError:
    raise
  except Exception as error:  # Pillow raises many types on damaged files
    raise ValueError(f"{type(error).__name__}: {error}") from error


def _to_rgb(image):
  from PIL import Image

  if image.mode.startswith("I;16"):
    grey = np.asarray(image).astype(np.uint16)
    return Image.fromarray((grey / 257 + 0.5).astype(np.uint8)).convert("RGB")
  if image.mode in ("I", "F"):
    # 32-bit values: whole numbers may be 16-bit ones in a wide type, others have no known range.
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
      raise ValueError(f"pixel values of mode {image.mode} have no known range")
    return Image.fromarray((values / 257 + 0.5).astype(np.uint8)).convert("RGB")
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
  return image.convert("RGB")


def list_pictures(folder: pathlib.Path) -> list[str]:
  """Finds the picture files in a folder and the folders in it.

  Args:
    folder: Where to look. Hidden files and folders (".name") are passed over; links are followed.

  Returns:
    Paths relative to ``folder`` with forward slashes, sorted by code point: the same on every host.

  Raises:
    InputError: If a folder in it cannot be listed.
  """

  def refuse(error: OSError):
    raise InputError(f"{error.filename} cannot be listed ({error.strerror}).") from error

  found = []
  for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
    real = os.path.realpath(parent)
    # A link back to where we came from would never end.
    folders[:] = [
      name
      for name in folders
      if not name.startswith(".")
      and not (real + os.sep).startswith(os.path.realpath(os.path.join(parent, name)) + os.sep)
    ]
    relative = pathlib.Path(parent).relative_to(folder)
    found += [
      (relative / name).as_posix()
      for name in files
      if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]
  return sorted(found)


def open_pictures(
  folder: pathlib.Path,
  files: Sequence[str],
  *,
  size: int,
  on_unreadable: str,
  progress: Callable[[int, int], None],
) -> Pictures:
  """Finds out which files can be read, and gives access to those.

  A picture that is cut short looks sound until its end is decoded, and which pictures there are has
  to be known before the splits are made. So every file is decoded once. Those found sound are noted
  in a cache and not decoded again at the next start; what was decoded is kept in memory where all
  of it fits (`udh_jax.data.images`).

  Args:
    folder: Where the files are.
    files: Paths relative to ``folder``.
    size: Side of the square that each becomes.
    on_unreadable: "skip" (with one warning that counts and names them) or "refuse".
    progress: Called with (files done, files in all).

  Returns:
    The readable pictures, in the order of ``files``.

  Raises:
    InputError: If a file cannot be read and ``on_unreadable`` is "refuse", or if none can be read.
  """
  from PIL import Image

  # Pillow loads its rarer formats at the first file that needs one, and another thread that opens
  # a file at that moment would fail.
  Image.init()

  def decode(row: int) -> np.ndarray:
    path = folder / files[row]
    try:
      return decode_picture(path.read_bytes(), size)
    except (OSError, ValueError) as error:
      raise InputError(f"{path} cannot be read ({error}).") from error

  images = DecodedImages(decode, len(files), (size, size, 3))
  sound = _SoundFiles(folder)

  def problem_of(row: int) -> str | None:
    try:
      if not sound.has(files[row]):
        images[row]
        sound.add(files[row])
    except InputError as error:
      return str(error)
    return None

  problems: dict[int, str] = {}
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    try:
      for start in range(0, len(files), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(files)))
        found = pool.map(problem_of, rows)
        problems.update((row, text) for row, text in zip(rows, found, strict=True) if text)
        if problems and on_unreadable == "refuse":
          first = next(iter(problems.values()))
          raise InputError(f'{first} Remove it, or set on_unreadable to "skip" to leave such out.')
        progress(rows.stop, len(files))
    finally:
      sound.save()
  kept = np.array([row for row in range(len(files)) if row not in problems], np.int64)
  if problems:
    shown = list(problems.values())[:_SHOWN]
    rest = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    logging.getLogger(__name__).warning(
      "%d of %d pictures are left out: %s%s", len(problems), len(files), " ".join(shown), rest
    )
    require(len(kept) > 0, f"None of the {len(files)} pictures in {folder} can be read: {shown[0]}")
  names = [files[row] for row in kept]
  return Pictures(SomeImages(images, kept) if problems else images, names, kept)


_CHUNK = 256  # files between two reports of progress
_SHOWN = 5  # unreadable files named in the warning


class _SoundFiles:
  """Which files were decoded to the end before, by path, size and time of change.

  Unreadable ones are not noted: a disk that was away for a moment must not lose a picture for good.
  """

  def __init__(self, folder):
    import PIL

    folder = folder.resolve()
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    self._path = pathlib.Path(cache, "udh_jax", f"sound_pictures_{name}.json")
    self._header = {"folder": os.fspath(folder), "pillow": PIL.__version__}
    self._folder = folder
    self._files = {}
    self._changed = False
    try:
      noted = json.loads(self._path.read_text())
      files = noted.pop("files")
      if noted == self._header:
        self._files = dict(files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
      pass  # none yet, or damaged: decode again

  def _state(self, file):
    stat = (self._folder / file).stat()
    return [stat.st_size, stat.st_mtime_ns]

  def has(self, file):
    noted = self._files.get(file)
    try:
      return noted is not None and noted == self._state(file)
    except OSError:
      return False

  def add(self, file):
    self._files[file] = self._state(file)
    self._changed = True

  def save(self):
    if not self._changed:
      return
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      write_text(self._path, json.dumps({**self._header, "files": dict(self._files)}))
    except OSError as error:  # a cache is a convenience
      logging.getLogger(__name__).info("%s cannot be written (%s)", self._path, error)
