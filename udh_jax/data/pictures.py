"""Picture files of any kind and size, brought to one size; and which of them can be read at all."""

import collections
import concurrent.futures
import contextlib
import errno
import functools
import hashlib
import io
import json
import logging
import os
import pathlib
import re
import stat
import struct
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

from udh_jax.data.images import DecodedImages, SomeImages
from udh_jax.errors import InputError, require
from udh_jax.files import write_text
from udh_jax.machine import cache_folder, num_cores
from udh_jax.printable import printable

_ALWAYS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_WHERE_READ = {".avif": "avif", ".jp2": "jpg_2000"}  # and Pillow's name of what reads it
NO_PICTURES = (
  f"holds no pictures: no file in it ends in {', '.join(_ALWAYS)}, or, where Pillow reads these, "
  f"in {' or '.join(_WHERE_READ)}."
)
# What lies beside pictures and is none: texts, tables, and what programs leave.
_BESIDE = {
  ".txt", ".md", ".rst", ".pdf", ".htm", ".html", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".xmp",
  ".aae", ".yml", ".yaml", ".toml", ".ini", ".log", ".npy", ".npz", ".mat", ".parquet", ".db",
  ".sqlite", ".index", ".partial", ".tmp", ".py",
}  # fmt: skip


@functools.cache
def picture_endings() -> tuple[str, ...]:
  """What names of pictures end in that Pillow of this machine reads, in lower case."""
  from PIL import features

  known = {*features.modules, *features.codecs}  # an older Pillow warns of others
  return _ALWAYS + tuple(
    end for end, name in _WHERE_READ.items() if name in known and features.check(name)
  )


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


class OutOfReachError(ValueError):
  """A file could not be read, and may be a sound picture all the same."""


def read_picture(path: str | os.PathLike, size: int) -> np.ndarray:
  """Decodes a picture file as `decode_picture` does.

  Only regular files are opened: a named pipe would be waited for without end.

  Raises:
    OutOfReachError: If it is there and cannot be read; says why in one line.
    ValueError: The same if it is gone, or was read and cannot be decoded.
  """
  try:
    with open_regular(path) as file:
      return decode_picture(file, size)
  except OSError as error:
    kind = ValueError if is_gone(path, error) else OutOfReachError
    raise kind(error.strerror or str(error)) from error


def is_gone(path: str | os.PathLike, error: OSError) -> bool:
  """Whether a file that cannot be opened is gone, and not only out of reach.

  What a link leads to may be on a disk that is away for a while.
  """
  return isinstance(error, FileNotFoundError | NotADirectoryError) and not os.path.islink(path)


def open_regular(path: str | os.PathLike) -> io.BufferedReader:
  """Opens a file for reading.

  Raises:
    ValueError: If it is a named pipe, a folder or anything else that is not a regular file.
    OSError: If it cannot be opened.
  """
  mode = os.stat(path).st_mode
  if not stat.S_ISREG(mode):
    words = next((words for is_kind, words in _NO_FILES if is_kind(mode)), "no regular file")
    raise ValueError(f"it is {words}")
  return open(path, "rb")


_NO_FILES = (
  (stat.S_ISDIR, "a folder"),
  (stat.S_ISFIFO, "a named pipe"),
  (stat.S_ISSOCK, "a socket"),
  (stat.S_ISCHR, "a device"),
  (stat.S_ISBLK, "a device"),
)


def decode_picture(
  data: bytes | IO[bytes],
  size: int,
  *,
  whole: Callable[[Any, int, int], None] | None = None,
  formats: tuple[str, ...] | None = None,
  max_pixels: int | None = None,
) -> np.ndarray:
  """Decodes a picture to a square: the short side becomes ``size``, of the long one the middle.

  EXIF rotation is undone. Grey, palette, CMYK and 16-bit pictures become RGB, transparent parts
  white; of an animation the first frame is taken. Damaged metadata (EXIF, comments, profiles) is
  no damaged picture: it is left out, and a picture whose rotation cannot be known is not rotated.

  Args:
    data: Contents of a picture file, or the file, opened for reading.
    size: Side of the square.
    whole: Called with the whole picture, upright, in RGB, perhaps at a fraction of its size (then
      with a short side of 64 pixels or more), and its full width and height.
    formats: Names of Pillow's formats that are read; None is all.
    max_pixels: Most that are decoded; None is what Pillow decodes.

  Returns:
    Array of shape ``[size, size, 3]``, uint8.

  Raises:
    OutOfReachError: If the file cannot be read.
    ValueError: If it is not a picture, is cut short or damaged, its values have no known range, or
      has more pixels than ``max_pixels`` or than Pillow decodes (`PIL.Image.MAX_IMAGE_PIXELS`,
      twice).
  """
  file = io.BytesIO(data) if isinstance(data, bytes | bytearray | memoryview) else data
  try:
    return _decode(file, size, whole, formats, max_pixels)
  except Exception as error:  # Pillow raises many types on damaged files
    # The system's errors have a number, Pillow's have none; a damaged file can have a wrong place.
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
      raise OutOfReachError(error.strerror) from error
    pixels = _without_metadata(file)
    if pixels is not None:
      with contextlib.suppress(Exception):
        return _decode(io.BytesIO(pixels), size, whole, formats, max_pixels)
    raise ValueError(reason_of(error)) from error


def picture_size(
  data: bytes | IO[bytes], *, formats: tuple[str, ...] | None = None
) -> tuple[int, int]:
  """Width and height of a picture as it is stored, from its header alone.

  Damaged metadata is passed over as in `decode_picture`.

  Args:
    data: As there.
    formats: Names of Pillow's formats that are read; None is all.

  Raises:
    Exception: Of the many types that Pillow raises on damaged files.
  """
  from PIL import Image

  file = io.BytesIO(data) if isinstance(data, bytes | bytearray | memoryview) else data
  try:
    with Image.open(file, formats=formats) as image:
      return image.size
  except Image.DecompressionBombError:
    raise
  except Exception:
    pixels = _without_metadata(file)
    if pixels is None:
      raise
    with Image.open(io.BytesIO(pixels), formats=formats) as image:
      return image.size


def _decode(file, size, whole, formats, max_pixels):
  from PIL import Image

  with Image.open(file, formats=formats) as image:
    if max_pixels is not None and image.width * image.height > max_pixels:
      raise ValueError(f"it has more than {max_pixels:,} pixels; make it smaller")
    limit = Image.MAX_IMAGE_PIXELS
    if limit and image.width * image.height > limit:
      _warn_of_size(getattr(file, "name", "A picture"), image.width, image.height, limit)
    # A JPEG can be decoded at an eighth, a quarter or half of its size, at a fraction of the
    # cost; twice the wanted side is kept, so that the last step still averages.
    full, least = image.size, 2 * max(size, 32)
    image.draft("RGB", (least, least))
    with _PIXELS.held(image.width * image.height):
      image.load()
      orientation = _orientation(image)  # after load, which turns a TIFF itself
      full = image.size if image.format == "TIFF" else full
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
        whole(upright, *(full[::-1] if orientation in (5, 6, 7, 8) else full))
    # The middle square stays where it is when it is turned.
    return np.asarray(square if turn is None else square.transpose(turn))


@functools.lru_cache(maxsize=1024)  # once for each file
def _warn_of_size(name, width, height, limit):
  logging.getLogger(__name__).warning(
    "%s has %d x %d pixels; above %s Pillow warns of a decompression bomb, above twice that no "
    "picture is read. A smaller copy would be read faster.",
    name,
    width,
    height,
    f"{limit:,}",
  )


class _Bounded:
  """So many at once in all threads, or one that is more."""

  def __init__(self, most: int):
    self._most, self._held = most, 0
    self._turn, self._given = threading.Lock(), threading.Condition()

  @contextlib.contextmanager
  def held(self, count: int) -> Iterator[None]:
    with self._turn, self._given:  # one waits here, the others behind it, so that a large one comes
      self._given.wait_for(lambda: not self._held or self._held + count <= self._most)
      self._held += count
    try:
      yield
    finally:
      with self._given:
        self._held -= count
        self._given.notify()


# Pixels that are decoded at once, about 20 bytes each on the way: 2.5 GiB, however many cores.
_PIXELS = _Bounded(1 << 27)


def _orientation(image) -> int | None:
  """How the picture was turned, or None where nothing that can be read says so."""
  try:
    orientation = image.getexif().get(_EXIF_ORIENTATION)
  except Exception:  # Pillow raises many types on damaged metadata
    return None
  return orientation if isinstance(orientation, int) else None


def reason_of(error: Exception) -> str:
  """What is wrong with a picture, in one line."""
  from PIL import Image, UnidentifiedImageError

  if isinstance(error, UnidentifiedImageError):
    return "it is not a picture of a known format, or its beginning is damaged"
  if isinstance(error, MemoryError):
    return "it needs more memory than there is"
  if isinstance(error, Image.DecompressionBombError):
    return f"it has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make it smaller"
  text = " ".join(re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>", "", str(error)).split())
  named = isinstance(error, OSError | SyntaxError | ValueError) and text
  return text if named else f"{type(error).__name__}: {text}".rstrip(": ")


def _without_metadata(file: IO[bytes]) -> bytes | None:
  """A PNG, JPEG or WebP file without the parts that say nothing of its pixels; None for others.

  The parts that are left are not changed: what is wrong with them is found by decoding.
  """
  file.seek(0, os.SEEK_END)
  if file.tell() > _LARGEST_FILE:
    return None
  file.seek(0)
  data = file.read()
  try:
    if data.startswith(_PNG):
      kept = _PNG + b"".join(_png_chunks(data))
    elif data.startswith(b"\xff\xd8"):
      kept = b"\xff\xd8" + b"".join(_jpeg_segments(data))
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
      parts = b"WEBP" + b"".join(_webp_chunks(data))
      kept = b"RIFF" + struct.pack("<I", len(parts)) + parts
    else:
      return None
  except struct.error:  # cut short
    return None
  return kept if kept != data else None


_PNG = b"\x89PNG\r\n\x1a\n"
_LARGEST_FILE = 1 << 28  # bytes


def _png_chunks(data):
  place = len(_PNG)
  while place < len(data):
    length, kind = struct.unpack_from(">I4s", data, place)
    whole = data[place : place + 12 + length]
    # A small first letter says that a decoder may pass a chunk over. Transparency is one such.
    needed = kind[0] & 0x20 == 0 or kind == b"tRNS"
    sound_exif = kind == b"eXIf" and whole[-4:] == struct.pack(">I", zlib.crc32(whole[4:-4]))
    if needed or sound_exif:
      yield whole
    if kind == b"IEND":
      return
    place += len(whole)


def _jpeg_segments(data):
  place = 2
  while place < len(data):
    marker, length = struct.unpack_from(">HH", data, place)
    if marker == 0xFFDA or marker < 0xFF00:  # the pixels begin, or nothing that can be told
      yield data[place:]
      return
    # APP0 and APP14 say how colours are stored; the other applications' segments and the comments
    # do not.
    if not (0xFFE1 <= marker <= 0xFFED or marker in (0xFFEF, 0xFFFE)):
      yield data[place : place + 2 + length]
    place += 2 + length


def _webp_chunks(data):
  place = 12
  while place + 8 <= len(data):
    kind, length = struct.unpack_from("<4sI", data, place)
    end = place + 8 + length + length % 2
    if kind not in (b"EXIF", b"XMP ", b"ICCP"):
      yield data[place:end]
    place = end


def _to_rgb(image):
  from PIL import Image

  if image.mode.startswith("I"):
    return Image.fromarray(_eight_bit_grey(image)).convert("RGB")
  if image.mode == "F":
    raise ValueError("pixel values of mode F have no known range")
  if image.has_transparency_data:
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")
  return image.convert("RGB")


def _eight_bit_grey(image) -> np.ndarray:
  """Whole numbers of more than 8 bits brought to 8, transparent ones to white."""
  values, tags = np.asarray(image), getattr(image, "tag_v2", {})
  (depth, *_), largest = tags.get(_BITS_PER_SAMPLE, (16,)), 65535
  if depth == 12:
    largest = 4095
  elif depth == 32:  # no known range: values of 8 or 16 bits in a wide type
    largest = 255 if values.max() <= 255 else 65535
  if values.min() < 0 or values.max() > largest:
    raise ValueError(f"pixel values of mode {image.mode} have no known range")
  grey = (values / (largest / 255) + 0.5).astype(np.uint8)
  if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
    grey = 255 - grey
  if (transparent := image.info.get("transparency")) is not None:
    grey[values == transparent] = 255
  return grey


# Tags of a TIFF file.
_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262
_WHITE_IS_ZERO = 0


def list_pictures(
  folder: pathlib.Path, others: collections.Counter[str] | None = None
) -> list[str]:
  """Finds the picture files in a folder and the folders in it.

  Links are followed, and each folder is looked into once, however many links lead to it: by the
  name that needs no link where there is one, or else by the first name. A link to a folder that
  ``folder`` lies in is not followed.

  Args:
    folder: Where to look. Hidden files and folders (".name") are passed over.
    others: Counts the files of other kinds by their ending, for `passed_over`; texts, tables and
      the like, which lie beside pictures, are not counted.

  Returns:
    Paths relative to ``folder`` with forward slashes, sorted by code point: the same on every host.

  Raises:
    InputError: If a folder in it cannot be listed.
  """

  def refuse(error: OSError):
    raise InputError(f"{error.filename} cannot be listed ({error.strerror}).") from error

  root, endings = os.path.realpath(folder), picture_endings()
  found: list[str] = []
  seen: set[str] = set()
  starts = collections.deque([os.fspath(folder)])  # the folder itself, then links to other folders
  while starts:
    start = starts.popleft()
    real = os.path.realpath(start)
    if start != os.fspath(folder) and os.path.join(root, "").startswith(os.path.join(real, "")):
      continue
    links = []
    for parent, folders, files in os.walk(start, onerror=refuse):
      real = os.path.realpath(parent)
      if real in seen:
        folders.clear()
        continue
      seen.add(real)
      folders[:] = sorted(name for name in folders if not name.startswith("."))
      paths = [os.path.join(parent, name) for name in folders]
      links += [path for path in paths if os.path.islink(path)]
      relative = pathlib.Path(parent).relative_to(folder)
      for name in files:
        if name.startswith("."):
          continue
        if name.lower().endswith(endings):
          found.append((relative / name).as_posix())
        elif others is not None and (ending := os.path.splitext(name)[1].lower()) not in _BESIDE:
          others[ending] += 1
    starts.extend(sorted(links))
  return sorted(found)


def passed_over(others: Mapping[str, int]) -> str:
  """The files of other kinds that `list_pictures` has counted, in a sentence; "" for none."""
  count = sum(others.values())
  if not count:
    return ""
  kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
  named = [f"{printable(ending) or 'no ending'} {n:,}" for ending, n in kinds[:_SHOWN]]
  named += [f"and {len(kinds) - _SHOWN} more kinds"] * (len(kinds) > _SHOWN)
  words = "files of other kinds were" if count > 1 else "file of another kind was"
  return f"{count:,} {words} passed over ({', '.join(named)})."


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
      return read_picture(path, size)
    except ValueError as error:
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
    except OSError as error:  # it was decoded, and is gone or cannot be read now
      return f"{folder / files[row]} cannot be read ({error.strerror or error})."
    return None

  problems: dict[int, str] = {}
  with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
    try:
      for start in range(0, len(files), _CHUNK):
        rows = range(start, min(start + _CHUNK, len(files)))
        found = pool.map(problem_of, rows)
        problems.update((row, text) for row, text in zip(rows, found, strict=True) if text)
        if problems and on_unreadable == "refuse":
          first = next(iter(problems.values()))
          raise InputError(
            f'{first} Remove it, or set on_unreadable to "skip" to leave such pictures out.'
          )
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
  images.digest, images.contents = sound.digest(names), sound.contents(names)
  return Pictures(SomeImages(images, kept) if problems else images, names, kept)


_CHUNK = 256  # files between two reports of progress
_SHOWN = 5  # unreadable files named in the warning, and kinds of files passed over
_blake2b = functools.partial(hashlib.blake2b, digest_size=16)


class _SoundFiles:
  """Which files were decoded to the end before, by path, size and time of change; their digests.

  Where an earlier version noted no digest, the file is read again.
  Unreadable ones are not noted: a disk that was away for a moment must not lose a picture for good.
  """

  def __init__(self, folder):
    import PIL

    folder = folder.resolve()
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    self._path = cache_folder() / f"sound_pictures_{name}.json"
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
      return isinstance(noted, list) and len(noted) == 3 and noted[:2] == self._state(file)
    except OSError:
      return False

  def add(self, file):
    state = self._state(file)  # before its digest: what changes meanwhile is noticed
    with open(self._folder / file, "rb") as opened:
      digest = hashlib.file_digest(opened, _blake2b)
    self._files[file] = [*state, digest.hexdigest()]
    self._changed = True

  def digest(self, files):
    """SHA-256 over names and sizes of sound files; no times, so that a copy has the same."""
    return self._over(hashlib.sha256(), files, 0)

  def contents(self, files):
    """BLAKE2b over names and contents of sound files."""
    return self._over(_blake2b(), files, 2)

  def _over(self, digest, files, noted):
    for file in files:
      digest.update(os.fsencode(f"{file}\n{self._files[file][noted]}\n"))
    return digest.hexdigest()

  def save(self):
    if not self._changed:
      return
    try:
      self._path.parent.mkdir(parents=True, exist_ok=True)
      write_text(self._path, json.dumps({**self._header, "files": dict(self._files)}))
    except OSError as error:  # a cache is a convenience
      logging.getLogger(__name__).info("%s cannot be written (%s)", self._path, error)
