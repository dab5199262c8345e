"""Codes of more pictures than one machine encodes: Parquet files, one for each part of a listing.

A listing is cut into parts, and a part's codes are one file, which is there whole or not at all. So
any machine may encode any part, a part that was begun and lost is begun again, and what is done is
known by looking which files are there: every picture of the listing is in the result once. A name
that several parts have is there once for each; a store keeps the last.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from udh_jax.encoders.distributed.file_systems import (
  EXTRA,
  delete_file,
  files_in,
  joined,
  open_parquet,
  write_table,
)
from udh_jax.encoders.distributed.listing import (
  LEFT_OUT,
  UNREACHABLE,
  Plan,
  pictures_of,
  read_plan,
)
from udh_jax.encoders.image import Encoder
from udh_jax.encoders.pair import PairEncoder
from udh_jax.encoders.reading import encode_batch, read_ahead
from udh_jax.errors import require
from udh_jax.extras import require_extra
from udh_jax.records import encoder_digest_of
from udh_jax.retrieval.index import Names
from udh_jax.retrieval.index.file import Batch, write_index
from udh_jax.stores.interface import Rows, Store, require_same_encoder

VERSION = 1
_ABOUT = b"udh_jax"  # key of what a file of codes says of itself


class PartDone(NamedTuple):
  """What became of a part.

  Attributes:
    number: Which one.
    encoded: Pictures whose codes were written.
    unreadable: Pictures that could not be read.
    seconds: How long it took.
  """

  number: int
  encoded: int
  unreadable: int
  seconds: float


def parts_done(output: str) -> set[int]:
  """Numbers of the parts whose codes are there."""
  return _numbers(output, "codes")


def parts_to_do(output: str, plan: Plan) -> list[int]:
  """Numbers of the parts whose codes are not there, or that held pictures out of reach."""
  done = parts_done(output)
  again = set()
  for number in _numbers(output, "unreadable"):
    with open_parquet(output, _part("unreadable", number)) as file:
      reasons = file.read(columns=["reason"]).column("reason").to_pylist()
    if any(reason.startswith(UNREACHABLE) for reason in reasons):
      again.add(number)
  return [n for n in range(len(plan.parts)) if n not in done or n in again]


def encode_part(
  encoder: Encoder | PairEncoder,
  plan: Plan,
  output: str,
  number: int,
  *,
  batch_size: int = 64,
  threads: int = 1,
) -> PartDone:
  """Encodes a part and writes its codes, whole or not at all.

  A picture that cannot be read is noted with the reason and left out. One whose file system fails
  is tried three times and then noted as such; the next call tries its part again.

  Args:
    encoder: Of the plan.
    plan: From `make_plan`.
    output: Its folder.
    number: Of the part.
    batch_size: Pictures encoded at once; codes of one part are the same wherever it is encoded.
    threads: That read and decode.
  """
  pa = require_extra("pyarrow", extra=EXTRA)
  started = time.monotonic()
  size, width = encoder.about["picture_size"], -(-plan.num_bits // 8)
  names: list[str] = []
  codes = [np.zeros((0, width), np.uint8)]
  bad: dict[str, str] = {}
  for read in read_ahead(pictures_of(plan, plan.parts[number]), size, batch_size, threads):
    bad |= {name: picture for name, picture in read if isinstance(picture, str)}
    good = [(name, picture) for name, picture in read if not isinstance(picture, str)]
    if good:
      codes.append(encode_batch(encoder, [picture for _, picture in good], batch_size))
      names += [name for name, _ in good]
  packed = np.concatenate(codes)
  about = {"version": VERSION, "num_bits": plan.num_bits, "encoder": plan.encoder}
  schema = pa.schema(
    [pa.field("name", pa.string(), False), pa.field("code", pa.binary(width), False)],
    metadata={_ABOUT: json.dumps(about).encode()},
  )
  array = pa.FixedSizeBinaryArray.from_buffers(
    pa.binary(width), len(packed), [None, pa.py_buffer(packed.tobytes())]
  )
  # The codes come last: their file says that the part is done.
  _write_unreadable(output, number, bad)
  write_table(output, _part("codes", number), pa.table([names, array], schema=schema))
  return PartDone(number, len(names), len(bad), time.monotonic() - started)


def code_batches(output: str) -> Iterator[Rows]:
  """All codes of a finished folder, a part at a time, in the order of the listing.

  Raises:
    InputError: If parts are missing, or a file is of another encoder.
  """
  plan = read_plan(output)
  _require_done(output, plan)
  for number in range(len(plan.parts)):
    with open_parquet(output, _part("codes", number)) as file:
      table = file.read()
    about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"{}"))
    require(
      (about.get("num_bits"), encoder_digest_of(about)) == (plan.num_bits, plan.encoder["digest"]),
      f"{joined(output, _part('codes', number))} is of another encoder than {output}/plan.json "
      "says; remove it and encode again.",
    )
    code = table.column("code").combine_chunks()
    width = -(-plan.num_bits // 8)
    start = code.offset * width
    data = np.frombuffer(code.buffers()[1] or b"", np.uint8)
    codes = data[start : start + len(code) * width].reshape(len(code), width)
    yield Rows(table.column("name").to_pylist(), codes, {})


def count_unreadable(output: str) -> int:
  """How many pictures could not be read; ``unreadable/`` has their names and the reasons."""
  return sum(_num_rows(output, f"unreadable/{name}") for name in files_in(output, "unreadable"))


def count_codes(output: str) -> int:
  """How many items the parts have that are done."""
  return sum(_num_rows(output, _part("codes", number)) for number in parts_done(output))


def count_pictures(output: str, plan: Plan) -> int:
  """Rows of the whole listing: those of the parts, and those whose names no part can hold."""
  left_out = LEFT_OUT in files_in(output, "unreadable")
  return plan.num_pictures + (_num_rows(output, f"unreadable/{LEFT_OUT}") if left_out else 0)


def parts_to_index(output: str, index: str | os.PathLike) -> int:
  """Writes the codes of a finished folder to an index file, holding a part at a time.

  Args:
    output: From `make_plan` and `encode_part`.
    index: File to write, for `HammingIndex.load`.

  Returns:
    How many items it has.

  Raises:
    InputError: If parts are missing, or the index cannot be written.
  """
  plan = read_plan(output)
  _require_done(output, plan)
  num_items = count_codes(output)
  like = Batch(np.zeros((0, -(-plan.num_bits // 8)), np.uint8), Names.of([]), {})
  write_index(
    index,
    _Source(output),
    like,
    num_items=num_items,
    num_bits=plan.num_bits,
    about={"encoder": plan.encoder, "folder": plan.root},
  )
  return num_items


class _Source:
  """Gives `write_index` the items of a folder in pieces, reading it once for each column."""

  def __init__(self, output: str):
    self._output = output

  def pieces(self, part: str) -> Iterator[Any]:
    for rows in code_batches(self._output):
      yield rows.codes if part == "codes" else Names.of(rows.names)


def parts_to_store(output: str, store: Store) -> int:
  """Writes the codes of a finished folder to a store, a part in a transaction.

  Stopped and called again, it writes only the parts that are not there as they are here.

  Args:
    output: From `make_plan` and `encode_part`.
    store: Of the same encoder.

  Returns:
    How many items the folder has.

  Raises:
    InputError: If parts are missing, or the store is of another encoder.
    StoreError: If the store fails; parts that were written stay.
  """
  plan = read_plan(output)
  require_same_encoder(store, plan.encoder["digest"])
  items = 0
  anything = store.count() > 0
  for rows in code_batches(output):
    items += len(rows.names)
    there = store.get(rows.names) if anything else None
    if not (
      there is not None and there.names == rows.names and np.array_equal(there.codes, rows.codes)
    ):
      store.load([rows])
  return items


def _require_done(output: str, plan: Plan) -> None:
  missing = len(set(range(len(plan.parts))) - parts_done(output))
  require(
    missing == 0,
    f"{missing} of {len(plan.parts)} parts of {output} are not encoded yet; run udh-jax encode "
    "--ray again, which goes on.",
  )


def _part(kind: str, number: int) -> str:
  return f"{kind}/part-{number:08d}.parquet"


def _numbers(output: str, kind: str) -> set[int]:
  """Numbers of the parts that have a file of a kind."""
  matches = [re.fullmatch(r"part-(\d+)\.parquet", name) for name in files_in(output, kind)]
  return {int(match[1]) for match in matches if match}


def _num_rows(folder: str, key: str) -> int:
  with open_parquet(folder, key) as opened:
    return opened.metadata.num_rows


def _write_unreadable(output: str, number: int, bad: dict[str, str]) -> None:
  """Writes what could not be read of a part; takes away what an earlier try left if all could."""
  pa = require_extra("pyarrow", extra=EXTRA)
  key = _part("unreadable", number)
  if bad:
    write_table(output, key, pa.table({"name": list(bad), "reason": list(bad.values())}))
  elif number in _numbers(output, "unreadable"):
    delete_file(output, key)
