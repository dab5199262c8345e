"""The first format of the index file, which is still read."""

import hashlib
import json
import pathlib
import struct
from typing import Any, NamedTuple

import numpy as np

from udh_jax.errors import InputError, require
from udh_jax.retrieval.index.file import REMEDY
from udh_jax.retrieval.index.names import Names

_PREFIX = struct.Struct("<8sIQ32s")  # magic, version, length of the header, its SHA-256


class Contents(NamedTuple):
  """What a file holds.

  Attributes:
    codes: uint8 array of shape ``[n, bytes]``.
    names: Of the items.
    num_bits: Length of the codes.
    about: JSON values by name.
  """

  codes: np.ndarray
  names: Names
  num_bits: int
  about: dict[str, Any]


def read_version_1(path: pathlib.Path) -> Contents:
  """Reads a whole file and checks every byte of it.

  Raises:
    InputError: If it is cut short or altered.
  """
  data = path.read_bytes()
  require(len(data) >= _PREFIX.size, f"{path} is cut short{REMEDY}")
  _, _, length, digest = _PREFIX.unpack_from(data)
  start = _PREFIX.size + length
  text = data[_PREFIX.size : start]
  require(hashlib.sha256(text).digest() == digest, f"The header of {path} is damaged{REMEDY}")
  try:
    header = json.loads(text)
    parts = {}
    for part in header["parts"]:
      found = data[start : start + part["bytes"]]
      require(
        hashlib.sha256(found).hexdigest() == part["sha256"],
        f"{path} is damaged: its {part['name']} do not match their checksum{REMEDY}",
      )
      parts[part["name"]] = np.frombuffer(found, np.uint8)
      start += part["bytes"]
    require(start == len(data), f"{path} holds {len(data) - start} bytes too many{REMEDY}")
    num_bytes = -(-header["num_bits"] // 8)
    codes = parts["codes"].reshape(header["num_items"], num_bytes)
    names = Names(parts["names"], parts["name_ends"].view("<u8"))
    return Contents(codes, names, header["num_bits"], header["about"])
  except InputError:
    raise
  except (ValueError, KeyError, TypeError) as error:
    raise InputError(f"The header of {path} is not as its format says{REMEDY}") from error
