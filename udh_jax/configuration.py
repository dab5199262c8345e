"""Configurations as data: fields by dotted name, parts of one, and what a word might have meant."""

import contextlib
import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from udh_jax.errors import InputError, require


def select(config: ConfigDict, fields: Sequence[str]) -> ConfigDict:
  """A locked copy of ``config`` that holds ``fields`` alone, so that no stage reads another.

  Args:
    config: Whole.
    fields: Dotted names; a section stands for all in it.
  """
  chosen: dict[str, Any] = {}
  for field in fields:
    source, target = config, chosen
    *sections, last = field.split(".")
    for section in sections:
      source, target = source[section], target.setdefault(section, {})
    value = source[last]
    target[last] = value.to_dict() if isinstance(value, ConfigDict) else value
  return ConfigDict(chosen).lock()


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
  """Dotted names and JSON values of all fields."""
  flat: dict[str, Any] = {}
  for key, value in sorted(config.items()):
    if isinstance(value, Mapping | ConfigDict):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = list(value) if isinstance(value, tuple) else value
  return flat


def field_names(config: Mapping[str, Any] | ConfigDict) -> set[str]:
  """Dotted names of all fields and sections."""
  fields = set(flatten(config))
  for field in tuple(fields):
    parts = field.split(".")
    fields |= {".".join(parts[:count]) for count in range(1, len(parts))}
  return fields


def unknown_field(field: str, known: Iterable[str]) -> str:
  """The line that refuses a field, with the names that are nearest to it."""
  known = sorted(known)
  last = field.rpartition(".")[2]
  near = difflib.get_close_matches(field, known, 3)
  near += [name for name in known if name.rpartition(".")[2] == last and name not in near][:3]
  words = f"did you mean {' or '.join(near)}?" if near else f"the sections are {_sections(known)}."
  return f"The configuration has no field {field}; {words}"


def _sections(known):
  return ", ".join(name for name in known if "." not in name)


def _is_open(config: ConfigDict, field: str) -> bool:
  """Whether a field takes values of several types, such as a number or "auto"."""
  *sections, name = field.split(".")
  for section in sections:
    config = config[section]
  return isinstance(config, ConfigDict) and name in config and config.get_type(name) is object


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
  """A copy of ``config`` with some fields set, as strictly as on the command line.

  Args:
    config: Whole.
    values: By dotted name. A whole number may stand for a float; otherwise the type has to be the
      field's. Fields that may be "auto" take a value of any type here.

  Raises:
    InputError: If there is no such field, or a value has another type.
  """
  given, config = config, config.copy_and_resolve_references()
  known = field_names(config)
  for field, value in values.items():
    require(field in known, functools.partial(unknown_field, field, known))
    now = flatten(config).get(field)
    try:
      if isinstance(value, bool) and isinstance(now, int | float) and not isinstance(now, bool):
        raise TypeError  # which would stand for 0 or 1
      with config.ignore_type() if _is_open(given, field) else contextlib.nullcontext():
        config.update_from_flattened_dict({field: value})
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
      raise InputError(
        f"The field {field} is {now!r}, of type {type(now).__name__}; {value!r} of type "
        f"{type(value).__name__} was given; give a value of the field's type."
      ) from error
  return config
