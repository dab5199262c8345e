"""What the interface offers, in one table: the routes, their arguments and their description."""

import json
import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from udh_jax.service.problems import Problem

Schema = dict[str, Any]
LARGEST = 2**53 - 1  # whole numbers that every JSON reader keeps


class Parameter(NamedTuple):
  """An argument in the query part of an address.

  Attributes:
    name: As it stands there.
    schema: JSON schema: a string or integer with its bounds, a boolean, or an array of strings, for
      which the argument may be repeated.
    description: For people.
    required: Whether it must be given.
  """

  name: str
  schema: Schema
  description: str
  required: bool = False


class Operation(NamedTuple):
  """One thing that can be asked.

  Attributes:
    method: Of HTTP.
    path: From the root.
    name: Of the function that answers.
    summary: One line.
    answers: JSON schema, or media type, of what comes back.
    parameters: In the address.
    bodies: JSON schema of what may be sent, by media type.
    problems: Statuses of refusals, besides those of every operation.
    open: Whether it is answered without the token.
  """

  method: str
  path: str
  name: str
  summary: str
  answers: Schema | str
  parameters: tuple[Parameter, ...] = ()
  bodies: Mapping[str, Schema] = {}
  problems: tuple[int, ...] = ()
  open: bool = False


def arguments_of(operation: Operation, query: bytes) -> dict[str, Any]:
  """Arguments of an operation.

  Args:
    operation: That was asked for.
    query: The part of the address after ?. Bytes that are not UTF-8 stay as they were, as in names
      of files.

  Returns:
    Values by name; what was left out is there with its default, or None.

  Raises:
    Problem: If an argument is unknown, missing, of another type or out of range.
  """
  given: dict[str, list[str]] = {}
  try:
    text = query.decode("ascii")
    pairs = urllib.parse.parse_qsl(
      text, keep_blank_values=True, errors="surrogateescape", max_num_fields=100
    )
  except ValueError:
    raise Problem("The address cannot be read; percent-encode its arguments.") from None
  for name, value in pairs:
    given.setdefault(name, []).append(value)
  known = {parameter.name: parameter for parameter in operation.parameters}
  unknown = sorted(given.keys() - known.keys())
  if unknown:
    names = ", ".join(known) or "none"
    raise _wrong(f"There is no argument {unknown[0][:40]!r} here; there are {names}.")
  return {name: _value(parameter, given.get(name, [])) for name, parameter in known.items()}


def _wrong(message):
  return Problem(message, code="bad_argument")


def _value(parameter, given):
  name, schema = parameter.name, parameter.schema
  if schema["type"] == "array":
    if len(given) > schema["maxItems"]:
      raise _wrong(f"{name} is given {len(given)} times; {schema['maxItems']} are allowed.")
    return given
  if len(given) > 1:
    raise _wrong(f"{name} is given {len(given)} times; give it once.")
  if not given:
    if parameter.required:
      raise _wrong(f"{name} is missing; give it in the address, as ?{name}=...")
    return schema.get("default")
  (text,) = given
  if schema["type"] == "string":
    if len(text) > schema["maxLength"]:
      raise _wrong(f"{name} has {len(text)} characters; {schema['maxLength']} are allowed.")
    return text
  if schema["type"] == "boolean":
    if text not in ("true", "false"):
      raise _wrong(f"{name} is {text[:40]!r}; give true or false.")
    return text == "true"
  low, high = schema["minimum"], schema["maximum"]
  digits = text.removeprefix("-")
  value = int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
  if value is None or not low <= value <= high:
    raise _wrong(f"{name} is {text[:40]!r}; give a whole number from {low} to {high}.")
  return value


_STATUSES = {
  400: "The request cannot be understood.",
  401: "A token is needed, or another.",
  403: "A page of another site has asked.",
  404: "It is not there.",
  408: "What was to be sent did not come in time.",
  413: "The picture has too many bytes or pixels.",
  415: "What was sent is of a kind that is not read.",
  421: "The server was called by a name that is not its own.",
  422: "The picture, code or text cannot be used.",
  500: "An error in the server; its log says more.",
  503: "Too much is asked at once, or the store cannot be reached.",
}
_ALWAYS = (400, 421, 500, 503)


def describe(
  operations: Sequence[Operation], *, schemas: Mapping[str, Schema], version: str, token: bool
) -> dict[str, Any]:
  """The description of the interface by OpenAPI 3.1.

  Args:
    operations: That there are.
    schemas: What the operations' schemas refer to, by name.
    version: Of the program.
    token: Whether a token is asked for.
  """
  paths: dict[str, Any] = {}
  for operation in operations:
    paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, token)
  components: dict[str, Any] = {"schemas": dict(schemas)}
  if token:
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
  return {
    "openapi": "3.1.0",
    "info": {
      "title": "udh_jax",
      "version": version,
      "summary": "Neighbours of pictures, codes and texts in a collection, by binary codes.",
      "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "servers": [{"url": "."}],
    "paths": paths,
    "components": components,
  }


def _described(operation: Operation, token: bool) -> dict[str, Any]:
  found: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
  if operation.parameters:
    found["parameters"] = [
      {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "required": parameter.required,
        "schema": parameter.schema,
      }
      for parameter in operation.parameters
    ]
  if operation.bodies:
    content = {kind: {"schema": schema} for kind, schema in operation.bodies.items()}
    found["requestBody"] = {"required": True, "content": content}
  if isinstance(operation.answers, str):
    content = {operation.answers: {}}
  else:
    content = {"application/json": {"schema": operation.answers}}
  statuses = {*_ALWAYS, *operation.problems}
  if token and not operation.open:
    found["security"] = [{"token": []}]
    statuses.add(401)
  problem = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
  found["responses"] = {
    "200": {"description": operation.summary, "content": content},
    **{str(s): {"description": _STATUSES[s], "content": problem} for s in sorted(statuses)},
  }
  return found


def json_bytes(value: Any) -> bytes:
  """JSON in ASCII, so that names whose bytes are not UTF-8 come through."""
  return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
