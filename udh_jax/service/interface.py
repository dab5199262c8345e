"""The operations of the interface and the shapes of what they take and return."""

from udh_jax.service.collection import LARGEST_K
from udh_jax.service.operations import LARGEST, Operation, Parameter
from udh_jax.service.thumbnails import KIND
from udh_jax.service.uploads import PART

LONGEST_NAME = 4096
MOST_ITEMS = 200  # of a page
_MOST_WORDS = 100
DEFAULT_K = 10
_OUTPUTS = "base64 of float32 numbers, one a bit, lowest byte first"


def _object(required, **properties):
  return {
    "type": "object",
    "properties": properties,
    "required": list(required),
    "additionalProperties": False,
  }


def _ref(name):
  return {"$ref": f"#/components/schemas/{name}"}


def _list(items):
  return {"type": "array", "items": items}


def _text(description=None, **more):
  return {"type": "string", **({"description": description} if description else {}), **more}


def _whole(description=None, **more):
  found = {"type": "integer", "minimum": 0, **more}
  return {**found, "description": description} if description else found


def _or_null(kind, description):
  return {"type": [kind, "null"], "description": description}


_LINKS = {
  "name": _text("of the item; relative to the folder of the pictures"),
  "item": _text("address of the item, relative to the server's"),
  "picture": _text("address of its picture"),
  "thumbnail": _text("address of its thumbnail"),
}
_METADATA = {"type": "object", "description": "values by column", "additionalProperties": True}

SCHEMAS = {
  "Problem": _object(
    ["error"],
    error=_object(
      ["code", "message"],
      code=_text("for programs; it stays the same when the message is worded anew"),
      message=_text("one line for people"),
    ),
  ),
  "ItemLinks": _object(_LINKS, **_LINKS),
  "Item": _object(
    [*_LINKS, "code", "metadata", "index"],
    **_LINKS,
    code=_text("packed code, hexadecimal"),
    metadata=_METADATA,
    index=_text("state of the index that answers"),
  ),
  "Neighbour": _object(
    [*_LINKS, "distance", "metadata"],
    **_LINKS,
    distance=_whole("bits that differ"),
    metadata=_METADATA,
  ),
  "Neighbours": _object(
    ["query", "bits", "items", "complete", "neighbours", "index"],
    query=_object(
      ["kind", "code"],
      kind=_text(enum=["picture", "code", "text", "item"]),
      code=_text("packed code of the query, hexadecimal; ask by it again"),
      outputs=_text(f"the encoder's outputs for the query, {_OUTPUTS}; with asymmetric alone"),
      name=_text("of the item that was asked by; it is not among its neighbours"),
      words=_list(_text()) | {"description": "words of the text that the encoder knows"},
      unknown_words=_list(_text()) | {"description": "words that were left out"},
    ),
    bits=_whole("length of the codes"),
    items=_whole("how many there are in the collection"),
    complete={
      "type": "boolean",
      "description": "whether these are all items, or all within the radius; not k of more, nor "
      "what an approximate search may have missed some of",
    },
    neighbours=_list(_ref("Neighbour"))
    | {"description": "nearest first; most similar first with asymmetric"},
    index=_text("state of the index that answers"),
  ),
  "Page": _object(
    ["items", "offset", "total", "index"],
    items=_list(_ref("ItemLinks")),
    offset=_whole("of the first one"),
    total=_whole("how many there are in the collection, or with `contains` in their names"),
    index=_text("state of the index that answers"),
  ),
  "Collection": _object(
    ["title", "items", "bits", "index", "encoder", "takes", "columns", "limits"],
    title=_text("of the collection"),
    items=_whole("how many there are"),
    bits=_whole("length of the codes"),
    index=_text("state of the index that answers"),
    encoder={
      "description": "that made the codes; null if it is not known",
      "anyOf": [
        _object(
          ["digest", "method", "words"],
          digest=_text("SHA-256 of all that decides the codes"),
          method=_text("that trained it"),
          words=_whole("size of its vocabulary"),
        ),
        {"type": "null"},
      ],
    },
    takes=_object(
      ["pictures", "texts", "asymmetric"],
      pictures={"type": "boolean", "description": "whether pictures can be sent"},
      texts={"type": "boolean", "description": "whether words can be sent"},
      asymmetric={
        "type": "boolean",
        "description": "whether pictures, texts or items can be sought with `asymmetric`",
      },
    ),
    columns={
      "type": "object",
      "description": "metadata columns to filter by, with their types",
      "additionalProperties": _text(enum=["text", "integer", "real", "boolean"]),
    },
    limits=_object(
      ["upload_bytes", "pixels", "k"],
      upload_bytes=_whole("of a picture that is sent"),
      pixels=_whole("of a picture that is sent"),
      k=_whole("neighbours of one answer"),
    ),
  ),
  "Words": _object(["words"], words=_list(_text())),
  "Health": _object(
    ["status"],
    status=_text("stale: the newest state of the index is not served", enum=["ok", "stale"]),
    items=_whole("how many there are"),
    bits=_whole("length of the codes"),
    index=_text("state of the index that answers"),
    loaded=_text("when it was loaded", format="date-time"),
    problem=_or_null("string", "why the newest state is not served"),
  ),
  "Session": _object(["token"], token={"type": "boolean", "description": "whether one is needed"}),
}

_NAME = Parameter(
  "name", {"type": "string", "maxLength": LONGEST_NAME}, "of an item", required=True
)
_K = Parameter(
  "k",
  {"type": "integer", "minimum": 1, "maximum": LARGEST_K},
  f"how many neighbours, at most; {DEFAULT_K}, with a radius {LARGEST_K}",
)
_RADIUS = Parameter(
  "radius",
  {"type": "integer", "minimum": 0, "maximum": LARGEST},
  "only neighbours within this distance",
)
_WHERE = Parameter(
  "where",
  {"type": "array", "items": {"type": "string"}, "maxItems": 20},
  "a condition on metadata, such as year>=2020; repeated, all must hold",
)
_ASYMMETRIC = Parameter(
  "asymmetric",
  {"type": "boolean", "default": False},
  "order by the encoder's real-valued outputs for the query; not for a code alone",
)


def _from_zero(name, description):
  schema = {"type": "integer", "minimum": 0, "maximum": LARGEST, "default": 0}
  return Parameter(name, schema, description)


def _at_most(name, most, default, description):
  schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
  return Parameter(name, schema, description)


def _part(name, description):
  return Parameter(name, {"type": "string", "maxLength": 100, "default": ""}, description)


_PICTURE_BODY = {"type": "string", "format": "binary"}
_JSON_BODY = {
  "type": "object",
  "description": "exactly one of these",
  "properties": {
    "hex": _text("packed code, hexadecimal"),
    "base64": _text("packed code, base64"),
    "outputs": _text(f"as an answer has them, {_OUTPUTS}"),
    "text": _text("to search by; for encoders trained on tags, tags separated by spaces or commas"),
    "name": _text("of an item"),
  },
  "minProperties": 1,
  "maxProperties": 1,
  "additionalProperties": False,
}

OPERATIONS = (
  Operation(
    "GET", "/v1/collection", "collection", "What is served, and what may be sent",
    _ref("Collection"),
  ),
  Operation(
    "GET", "/v1/items", "items", "Names of the collection, a page at a time", _ref("Page"),
    (
      _from_zero("offset", "of the first item"),
      _at_most("limit", MOST_ITEMS, 60, "how many"),
      _part("contains", "only names with this text in them; ASCII letters in either case"),
    ),
  ),
  Operation(
    "GET", "/v1/item", "item", "An item with its code", _ref("Item"), (_NAME,), problems=(404,)
  ),
  Operation(
    "GET", "/v1/neighbours", "neighbours_of_item", "Neighbours of an item, itself left out",
    _ref("Neighbours"), (_NAME, _K, _RADIUS, _WHERE, _ASYMMETRIC), problems=(404, 422),
  ),
  Operation(
    "POST", "/v1/neighbours", "neighbours", "Neighbours of a picture, a code, a text or an item",
    _ref("Neighbours"), (_K, _RADIUS, _WHERE, _ASYMMETRIC),
    bodies={
      "image/*": _PICTURE_BODY,
      "application/octet-stream": _PICTURE_BODY,
      "multipart/form-data": _object([PART], **{PART: _PICTURE_BODY}),
      "application/json": _JSON_BODY,
    },
    problems=(403, 404, 408, 413, 415, 422),
  ),
  Operation(
    "GET", "/v1/picture", "picture", "The picture of an item, as its file is", "image/*",
    (_NAME,), problems=(404,),
  ),
  Operation(
    "GET", "/v1/thumbnail", "thumbnail", "A small square copy of an item's picture", KIND,
    (_NAME,), problems=(404,),
  ),
  Operation(
    "GET", "/v1/words", "words", "Words that the encoder knows", _ref("Words"),
    (
      _part("start", "how they begin"),
      _at_most("limit", _MOST_WORDS, 20, "how many"),
    ),
  ),
  Operation(
    "POST", "/v1/session", "session", "Sets a cookie for the token, so that a browser sends it",
    _ref("Session"),
    bodies={"application/json": _object(["token"], token=_text())},
    problems=(401, 403, 408, 413, 415), open=True,
  ),
  Operation(
    "GET", "/healthz", "healthz", "Whether it answers; more is said to those with the token",
    _ref("Health"), open=True,
  ),
  Operation("GET", "/metrics", "metrics", "Figures for Prometheus", "text/plain"),
  Operation(
    "GET", "/openapi.json", "openapi", "This description", {"type": "object"}, open=True
  ),
)  # fmt: skip
