"""A folder of pictures in, an index of their codes out."""

import concurrent.futures
import hashlib
import os
import pathlib
import time
from collections.abc import Iterator, Sequence

import numpy as np

from udh_jax.data.pictures import list_pictures, read_picture
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.loading import absolute
from udh_jax.encoders.pair import PairEncoder
from udh_jax.errors import InputError, require
from udh_jax.files import require_writable, write_text
from udh_jax.printable import printable
from udh_jax.retrieval.index import HammingIndex
from udh_jax.retrieval.index.file import MAGIC

SAVE_EVERY = 30.0  # seconds between two saves of what is done
SHOW_EVERY = 5.0


def require_pictures(encoder: Encoder | PairEncoder) -> None:
  """Refuses an encoder that was trained on features, which picture files do not hold."""
  require(
    encoder.about["picture_size"],
    lambda: (
      f"The encoder was trained on features of {encoder.about['image_width']} numbers an image, "
      "not on pictures; give such features to its images(...) from Python."
    ),
  )


def decoded(
  folder: pathlib.Path, files: Sequence[str], size: int, batch_size: int
) -> Iterator[tuple[list[str], np.ndarray, dict[str, str]]]:
  """Reads pictures ahead in threads.

  Args:
    folder: Where the files are.
    files: Paths relative to it.
    size: Side of the square that each becomes.
    batch_size: Files of a batch.

  Yields:
    Names of the readable files of a batch; their pictures, uint8 ``[b, size, size, 3]``; and what
    is wrong with the others, by name.
  """

  def read(name):
    try:
      return read_picture(folder / name, size)
    except ValueError as error:
      return str(error)

  starts = range(0, len(files), batch_size)
  with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    submitted = [[pool.submit(read, n) for n in files[i : i + batch_size]] for i in starts[:2]]
    for start in starts:
      ahead = start + 2 * batch_size
      submitted.append([pool.submit(read, n) for n in files[ahead : ahead + batch_size]])
      names = files[start : start + batch_size]
      results = [future.result() for future in submitted.pop(0)]
      bad = {n: r for n, r in zip(names, results, strict=True) if isinstance(r, str)}
      good = [r for r in results if not isinstance(r, str)]
      pictures = np.stack(good) if good else np.zeros((0, size, size, 3), np.uint8)
      yield [n for n in names if n not in bad], pictures, bad


def encode_folder(
  encoder: Encoder | PairEncoder,
  folder: str | os.PathLike,
  output: str | os.PathLike,
  *,
  source: str = "",
  batch_size: int = 64,
) -> HammingIndex:
  """Encodes all pictures in a folder and writes the index, whole or not at all.

  What is done is kept beside ``output`` (``.partial``) and taken up by the next call, unless the
  encoder or the folder's list of pictures has changed. Unreadable files are left out and listed in
  ``output`` + ``.unreadable.txt``.

  Args:
    encoder: From `load_encoder`.
    folder: Nested as it may be.
    output: File to write.
    source: Where the encoder came from, a folder or ``hf-hub:owner/name``; noted in the index for
      `udh_jax.encoders.loading.encoder_of`, a folder by its absolute path.
    batch_size: Pictures encoded at once, at most; no batch is larger than the folder needs.

  Returns:
    The index; names are paths relative to ``folder``, with forward slashes.

  Raises:
    InputError: If the folder is missing or holds no readable picture, ``output`` cannot be
      written or is a file of another kind, or the encoder takes no pictures.
  """
  require_pictures(encoder)
  require(batch_size >= 1, f"The batch size is {batch_size}; give 1 or more.")
  folder, output = pathlib.Path(folder), pathlib.Path(output)
  require(folder.is_dir(), f"{folder} is no folder; give the folder of the pictures.")
  partial = output.with_name(f"{output.name}.partial")
  listed = output.with_name(f"{output.name}.unreadable.txt")
  _require_free(output)
  for path in (output, partial, listed):
    require_writable(path)
  files = list_pictures(folder)
  require(files, f"There are no pictures in {folder}; known endings are those of common formats.")
  listing = hashlib.sha256("\0".join(files).encode("utf-8", "surrogateescape")).hexdigest()
  about = {
    "encoder": {"source": absolute(source), "digest": encoder.digest},
    "folder": str(folder.resolve()),
    "listing": listing,
  }
  bits = encoder.about["bits"]
  index, bad = _taken_up(partial, about, bits)
  done = len(index) + len(bad)
  if done:
    _tell(f"{done:,} of {len(files):,} pictures were done before")
  started = saved = shown = time.monotonic()
  first = done
  parts, names = [index.codes], list(index.names)

  def whole(extra):
    return HammingIndex(np.concatenate(parts), names, num_bits=bits, about=about | extra)

  # One shape, compiled once; it does not depend on what was done before, for rounding would.
  batch_size = -(-len(files) // -(-len(files) // batch_size))
  size = encoder.about["picture_size"]
  for read, pictures, wrong in decoded(folder, files[done:], size, batch_size):
    fill = -len(pictures) % batch_size
    padded = np.pad(pictures, ((0, fill), (0, 0), (0, 0), (0, 0)))
    parts.append(encoder(padded)[: len(pictures)])
    names += read
    bad |= wrong
    done += len(read) + len(wrong)
    now = time.monotonic()
    if now - shown >= SHOW_EVERY:
      rate = (done - first) / (now - started)
      left = (len(files) - done) / rate
      _tell(f"{done:,}/{len(files):,} pictures  {rate:.0f}/s  {left:.0f} s left")
      shown = now
    if now - saved >= SAVE_EVERY:
      whole({"unreadable": bad}).save(partial)
      saved = now
  if bad:
    lines = [f"{printable(name)}: {printable(reason)}\n" for name, reason in bad.items()]
    write_text(listed, "".join(lines))
    _tell(f"{len(bad):,} of {len(files):,} files cannot be read; they are listed in {listed}")
  else:
    listed.unlink(missing_ok=True)
  require(names, f"None of the {len(files)} pictures in {folder} can be read; see {listed}.")
  index = whole({})
  index.save(output)
  partial.unlink(missing_ok=True)
  rate = (done - first) / max(time.monotonic() - started, 1e-9)
  _tell(f"{output}: {len(index):,} pictures, {bits} bits, {rate:.0f} pictures/s")
  return index


def _tell(text: str) -> None:
  print(printable(text), flush=True)


def _require_free(output: pathlib.Path) -> None:
  """Refuses to write an index in the place of a file that is something else, such as a picture."""
  if output.is_file():
    with output.open("rb") as file:
      beginning = file.read(len(MAGIC))
    require(
      beginning in (b"", MAGIC),
      f"{output} is there and is no index; remove it, or name another file.",
    )


def _taken_up(partial, about, bits) -> tuple[HammingIndex, dict[str, str]]:
  """What an interrupted call with the same encoder and files has left."""
  empty = HammingIndex(np.zeros((0, -(-bits // 8)), np.uint8), [], num_bits=bits)
  if not partial.exists():
    return empty, {}
  try:
    index = HammingIndex.load(partial)
  except InputError as error:
    _tell(f"{error} Starting anew.")
    return empty, {}
  bad = index.about.pop("unreadable", None)
  if bad is None or index.about != about:
    _tell(f"{partial} is of another encoder or other pictures; starting anew.")
    return empty, {}
  return index, bad
