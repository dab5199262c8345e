"""Records that were read from a file: every field is there and holds what it should."""

import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from udh_jax.errors import InputError, require


class Kind(NamedTuple):
  """What a field may hold.

  Attributes:
    words: For messages: "expected" stands before them.
    holds: Whether a value is of this kind.
  """

  words: str
  holds: Callable[[Any], bool]


TEXT = Kind("text", lambda value: isinstance(value, str))
LIST = Kind("a list", lambda value: isinstance(value, list))
ANYTHING = Kind("anything", lambda value: True)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
TEXTS = Kind(
  "a list of texts",
  lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
)


def one_of(*words: str) -> Kind:
  """One of some words."""
  shown = " or ".join(map(repr, words))
  return Kind(shown, lambda value: isinstance(value, str) and value in words)


def whole(least: int, most: int) -> Kind:
  """A whole number."""
  return Kind(
    f"a whole number from {least:,} to {most:,}",
    lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most,
  )


def number(least: float, most: float = math.inf) -> Kind:
  """A finite number."""
  limits = f"from {least:g} on" if math.isinf(most) else f"from {least:g} to {most:g}"
  return Kind(f"a finite number {limits}", lambda value: _finite(value) and least <= value <= most)


def numbers(count: int, *, positive: bool = False) -> Kind:
  """So many finite numbers."""
  return Kind(
    f"{count} {'positive' if positive else 'finite'} numbers",
    lambda value: (
      isinstance(value, list | tuple)
      and len(value) == count
      and all(_finite(item) and (item > 0 or not positive) for item in value)
    ),
  )


def _finite(value):
  if isinstance(value, bool) or not isinstance(value, int | float):
    return False
  try:
    return math.isfinite(value)
  except OverflowError:  # a whole number beyond what a float can be
    return False


def require_fields(source: object, record: Any, kinds: Mapping[str, Kind]) -> dict[str, Any]:
  """Refuses a record that lacks a field, or has one of another kind.

  Args:
    source: The file that it was read from.
    record: What was read.
    kinds: What each field may hold. Other fields may be there too.

  Returns:
    The record.

  Raises:
    InputError: If it is not a record, or a field is not as it should be; names file and field.
  """
  remedy = "fetch it or make it again"
  require(
    isinstance(record, dict),
    lambda: f"{source} is damaged: it holds {brief(record)}, expected an object; {remedy}.",
  )
  for name, kind in kinds.items():
    require(name in record, f"{source} is damaged: it has no field {name}; {remedy}.")
    if not kind.holds(record[name]):
      raise InputError(
        f"{source} is damaged: its field {name} is {brief(record[name])}, expected {kind.words}; "
        f"{remedy}."
      )
  return record


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 60


def brief(value: object) -> str:
  """A value as Python writes it, in part if it is long."""
  return " ".join(_SHORT.repr(value).split())


def encoder_digest_of(about: Mapping[str, Any]) -> str | None:
  """Digest of the encoder that made some codes, by what their index or store notes of them."""
  made = about.get("encoder")
  return made.get("digest") if isinstance(made, dict) else None
